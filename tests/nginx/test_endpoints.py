"""Pods come and go without a reload."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of, eventually, until
from tests.nginx.resources import pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    """A gateway that gives endpoints their kept connections on request of the tests only."""
    async with run(root, nginx, endpoints_delay=3600) as gateway:
        yield gateway


async def _endpoints(gateway: Gateway, *pods: Backend) -> None:
    """The pool has these pods, and the picker knows."""
    await gateway.apply("pool.yaml", pool("gpu", *(pod.address for pod in pods)))


async def _load_file_with(gateway: Gateway, *pods: Backend) -> None:
    """Makes nginx load a file that has these pods. A route that is another one takes a reload."""
    number = len(gateway.turns)
    gateway.write("routes.yaml", route("all", rule(to_pool("gpu")), rule(to_pool("gpu"), path=f"/{number}")))
    await _endpoints(gateway, *pods)
    await until(lambda: len(gateway.workers()) == WORKERS)


async def _served_by(http: httpx.AsyncClient, count: int = 20) -> Counter[str]:
    answers = await asyncio.gather(*(http.post("/", content=b"x") for _ in range(count)))
    return Counter(answer.json()["server"] for answer in answers)


async def test_pods_come_and_go_without_a_reload(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve(name="one") as one, serve(name="two") as two, serve(name="three") as three:
        await _load_file_with(gateway, one)
        before = gateway.data_plane.nginx_pid, gateway.workers(), gateway.state.current.readlink()
        await _endpoints(gateway, one, two)
        await gateway.prefers("default/gpu", one.address, two.address)
        assert set(await _served_by(http)) == {"one", "two"}
        await _endpoints(gateway, three)
        assert set(await _served_by(http)) == {"three"}
        await _endpoints(gateway)
        assert (await http.post("/", content=b"x")).status_code == 503
        await _endpoints(gateway, one)
        assert set(await _served_by(http)) == {"one"}
        assert (gateway.data_plane.nginx_pid, gateway.workers(), gateway.state.current.readlink()) == before


async def test_pod_that_leaves_ends_its_streams_itself(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def answer(request: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\none ")
        await writer.drain()
        await go_on.wait()
        writer.write(b"more")

    async with serve(answer) as leaving, serve(name="stays") as stays, client_of(gateway) as http:
        await _load_file_with(gateway, leaving)
        stream = asyncio.create_task(http.post("/"))
        await until(lambda: leaving.requests)
        await _endpoints(gateway, stays)
        assert set(await _served_by(http)) == {"stays"}
        await eventually(lambda: gateway.counts(1))
        go_on.set()
        assert (await stream).content == b"one more"
        await gateway.idle()


async def test_second_request_to_a_pod_opens_no_connection(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve() as pod:
        await _load_file_with(gateway, pod)
        for _ in range(50):
            assert (await http.post("/", content=b"x")).status_code == 200
        # A worker each, since the connections that are kept are a worker's own.
        assert pod.connections <= WORKERS


async def test_concurrent_requests_keep_their_connections(gateway: Gateway) -> None:
    async with serve() as pod, client_of(gateway) as http:
        await _load_file_with(gateway, pod)
        for _ in range(5):
            await _served_by(http, count=20)
        assert pod.connections <= 40


async def test_service_keeps_its_connections(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve() as backend:
        await gateway.apply(
            "service.yaml", service("web", backend.address), route("web", rule(to_service("web"), path="/web"))
        )
        for _ in range(50):
            assert (await http.post("/web", content=b"x")).status_code == 200
        assert backend.connections <= WORKERS
        await gateway.apply("service.yaml")


async def test_rolling_restart_of_pods_fails_no_request(gateway: Gateway) -> None:
    """A pod comes, its predecessor leaves the pool, and ends when it has nothing left to do."""
    statuses: Counter[int] = Counter()
    over = asyncio.Event()

    async def ask() -> None:
        async with client_of(gateway) as http:
            while not over.is_set():
                statuses[(await http.post("/", content=b"x")).status_code] += 1

    async with serve() as last:
        async with AsyncExitStack() as running:
            old = await running.enter_async_context(serve())
            await _load_file_with(gateway, old)
            clients = [asyncio.create_task(ask()) for _ in range(4)]
            for number in range(4):
                stack = AsyncExitStack()
                new = last if number == 3 else await stack.enter_async_context(serve())
                await _endpoints(gateway, old, new)
                await until(lambda new=new: len(new.requests) > 5)  # type: ignore[misc]  # a lambda with a default
                await _endpoints(gateway, new)
                await gateway.idle_at(old.address)
                await running.aclose()
                old, running = new, stack
        over.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}


async def test_two_ports_of_one_address_are_two_pods(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve(name="one") as one, serve(name="two") as two:
        await _load_file_with(gateway, one, two)
        await gateway.prefers("default/gpu", one.address, two.address)
        served = await _served_by(http, count=40)
        assert served["one"] >= 10
        assert served["two"] >= 10


async def test_reload_that_gives_endpoints_their_connections_comes_later(
    tmp_path: Path, nginx: Nginx, run: Run
) -> None:
    async with (
        serve() as one,
        serve() as two,
        run(tmp_path, nginx, endpoints_delay=0.3) as gateway,
        client_of(gateway) as http,
    ):
        await gateway.apply("routes.yaml", pool("gpu", one.address), route("all", rule(to_pool("gpu"))))
        release = gateway.state.current.readlink()
        await gateway.apply("routes.yaml", pool("gpu", two.address), route("all", rule(to_pool("gpu"))))
        turns = len(gateway.turns)
        assert gateway.state.current.readlink() == release
        await until(lambda: len(gateway.turns) > turns)
        assert gateway.state.current.readlink() != release
        await until(lambda: len(gateway.workers()) == WORKERS)
        for _ in range(20):
            await http.post("/", content=b"x")
        assert two.connections <= WORKERS
