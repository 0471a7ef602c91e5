"""The configuration changes under load, and clients see nothing of it."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import websockets

from controller.agent.generations import FREE
from controller.agent.nginx import Nginx
from controller.commands.run import picker_command
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, Run, client_of, eventually, run_gateway, until
from tests.nginx.resources import Json, header, pool, response_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2
numbers = itertools.count()


class Broadcast:
    """Sends an event to all streams at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._next = asyncio.Event()

    def send(self, event: bytes) -> None:
        """An event of no bytes ends the streams."""
        self.sent.append(event)
        self._next.set()
        self._next = asyncio.Event()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if not request.target.endswith("/stream"):
            writer.write(response(request.body or b"ok"))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        position = 0
        while True:
            while position == len(self.sent):
                await self._next.wait()
            event = self.sent[position]
            position += 1
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            if not event:
                return


def _changed() -> list[Json]:
    """A filter that is another each time."""
    return [response_headers(set=[header("X-Version", str(next(numbers)))])]


async def _reload(gateway: Gateway) -> None:
    await gateway.apply("routes.yaml", route("all", rule(to_pool("gpu"), filters=_changed())))


@asynccontextmanager
async def _load(gateway: Gateway, *paths: str) -> AsyncIterator[list[int]]:
    """Two clients for each path, which ask until the end of the context and collect statuses."""
    statuses: list[int] = []
    over = asyncio.Event()

    async def ask(path: str, *, keeps: bool) -> None:
        body = b"b" * 3000
        async with client_of(gateway) as http:
            while not over.is_set():
                answer = await http.post(path, content=body, headers={} if keeps else {"Connection": "close"})
                statuses.append(answer.status_code if answer.content == body else -answer.status_code)

    clients = [asyncio.create_task(ask(path, keeps=keeps)) for path in paths for keeps in (True, False)]
    try:
        yield statuses
    finally:
        over.set()
        await asyncio.gather(*clients)


async def test_200_streams_lose_nothing_over_10_reloads(gateway: Gateway) -> None:
    broadcast = Broadcast()
    async with serve(broadcast.answer) as pod:
        await gateway.apply("pool.yaml", pool("gpu", pod.address))
        await _reload(gateway)
        first = gateway.workers()
        unlimited = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60, trust_env=False, limits=unlimited) as http:
            streams = [asyncio.create_task(http.post("/stream")) for _ in range(200)]
            await until(lambda: len(pod.requests) == 200)
            async with _load(gateway, "/x") as statuses:
                for number in range(10):
                    broadcast.send(b"data: %d\n\n" % number)
                    await _reload(gateway)
            await eventually(lambda: gateway.counts(200))
            assert len(gateway.workers()) <= WORKERS * 2 + len(first)
            broadcast.send(b"")
            answers = await asyncio.gather(*streams)
        assert {answer.content for answer in answers} == {b"".join(broadcast.sent)}
        assert len(broadcast.sent) == 11
        assert set(statuses) == {200}
        await until(lambda: len(gateway.workers()) == WORKERS)
        await gateway.idle()


async def test_websocket_outlives_reloads(gateway: Gateway) -> None:
    async with await simulate([PodSettings(name="a", model="base")]) as simulation:
        await gateway.apply("pool.yaml", pool("gpu", simulation.addresses["a"]))
        await _reload(gateway)
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/realtime", proxy=None) as session:
            for number in range(3):
                await session.send(f"message {number}")
                assert await session.recv() == f"message {number}"
                await _reload(gateway)
        await until(lambda: len(gateway.workers()) == WORKERS)


async def test_change_each_200_ms_under_load_fails_no_request(gateway: Gateway) -> None:
    def rules() -> Json:
        return route("all", rule(to_pool("gpu"), filters=_changed()), rule(to_service("cpu"), path="/service"))

    async with serve(Broadcast().answer) as pod:
        await gateway.apply("pool.yaml", pool("gpu", pod.address), service("cpu", pod.address))
        await gateway.apply("routes.yaml", rules())
        turns = len(gateway.turns)
        async with _load(gateway, "/pool", "/service") as statuses:
            for number in range(15):
                gateway.write("routes.yaml", rules(), route("extra", rule(to_pool("gpu"), path=f"/extra/{number}")))
                await asyncio.sleep(0.2)  # the pace of the changes, not a wait for something
            await gateway.live()
        assert len(gateway.turns) - turns >= 5
        assert set(statuses) == {200}
        assert len(statuses) > 100
        await until(lambda: len(gateway.workers()) == WORKERS)
        await gateway.idle()


async def test_route_to_a_pool_that_is_new_is_served_once_it_is_live(tmp_path: Path, nginx: Nginx) -> None:
    """The picker of this test looks at its pools once in a second, so that the order shows."""
    slow = "import sys; from controller import __main__ as m; from controller.picker import server as s;"
    slow += "s.FOLLOW_EVERY = 1.0; sys.exit(m.main(sys.argv[1:]))"
    command = (sys.executable, "-c", slow, *picker_command()[3:])
    async with serve() as pod, run_gateway(tmp_path, nginx, picker=command) as gateway:
        statuses = []
        for name in ("one", "two"):
            gateway.write("new.yaml", pool(name, pod.address), route("new", rule(to_pool(name))))
            await gateway.live()
            async with client_of(gateway) as http:
                statuses.append((await http.post("/", content=b"x")).status_code)
        assert statuses == [200, 200]


def _two_pools(address: str) -> list[Json]:
    return [*pool("gpu", address), *pool("other", address)]


async def test_pool_that_goes_with_its_route_fails_no_request(gateway: Gateway) -> None:
    """Old workers ask for a pool that is no more, until they have been told."""
    async with serve(Broadcast().answer) as pod:
        await gateway.apply("pool.yaml", *_two_pools(pod.address))
        await gateway.apply("routes.yaml", route("all", rule(to_pool("gpu")), rule(to_pool("other"), path="/other")))
        async with _load(gateway, "/x") as statuses:
            await until(lambda: len(statuses) > 20)
            await gateway.apply("routes.yaml", route("all", rule(to_pool("other"))))
            count = len(statuses)
            await until(lambda: len(statuses) > count + 20)
        assert set(statuses) == {200}


async def test_kept_connection_is_served_when_its_pool_went(tmp_path: Path, nginx: Nginx, run: Run) -> None:
    edits = {"keepalive_min_timeout 1s": "keepalive_min_timeout 5s"}
    async with serve() as pod, run(tmp_path, nginx, edits=edits) as gateway, client_of(gateway) as http:
        await gateway.apply("pool.yaml", *_two_pools(pod.address))
        await gateway.apply("routes.yaml", route("all", rule(to_pool("gpu")), rule(to_pool("other"), path="/other")))
        assert (await http.post("/", content=b"x")).status_code == 200
        await gateway.apply("routes.yaml", route("all", rule(to_pool("other"))))
        assert (await http.post("/", content=b"x")).status_code == 200


async def test_change_is_live_within_a_second(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve(name="pod") as pod:
        await gateway.apply("pool.yaml", service("web", pod.address))

        async def is_live() -> bool:
            return (await http.get("/fresh")).status_code == 200

        gateway.write("fresh.yaml", route("fresh", rule(to_service("web"), path="/fresh")))
        await eventually(is_live, seconds=1.0)
        await gateway.apply("fresh.yaml")


async def test_same_resources_in_another_order_reload_nothing(gateway: Gateway) -> None:
    async with serve() as pod:
        documents = [*pool("gpu", pod.address), route("all", rule(to_pool("gpu")))]
        await gateway.apply("pool.yaml")
        await gateway.apply("routes.yaml", *documents)
        await until(lambda: len(gateway.workers()) == WORKERS)
        before = gateway.state.current.readlink(), gateway.workers()
        await gateway.apply("routes.yaml", *reversed(documents))
        await gateway.apply("foreign.yaml", service("nobody-asks", pod.address))
        assert (gateway.state.current.readlink(), gateway.workers()) == before


async def test_many_changes_over_open_streams_leave_few_old_workers(gateway: Gateway) -> None:
    broadcast = Broadcast()
    changes = FREE + 4
    async with serve(broadcast.answer) as pod:
        await gateway.apply("pool.yaml", pool("gpu", pod.address))
        await _reload(gateway)
        async with client_of(gateway) as http:
            streams = []
            for number in range(changes):
                # Each of a worker of its own generation.
                streams.append(asyncio.create_task(http.post("/stream", headers={"Connection": "close"})))
                await until(lambda: len(pod.requests) == len(streams))
                if number < FREE:
                    await _reload(gateway)
                else:
                    gateway.write("routes.yaml", route("all", rule(to_pool("gpu"), filters=_changed())))
            await until(lambda: gateway.turns[-1].serving is None)
            assert len(gateway.workers()) <= (FREE + 2) * WORKERS
            broadcast.send(b"data: all\n\n")
            broadcast.send(b"")
            answers = await asyncio.gather(*streams)
        assert {answer.content for answer in answers} == {b"data: all\n\n"}
        await until(lambda: gateway.turns[-1].serving is True)
        answer = await _fresh(gateway)
        assert answer.headers["X-Version"] == str(next(numbers) - 1)
        await gateway.idle()


async def _fresh(gateway: Gateway) -> httpx.Response:
    """An answer to a request on a connection of its own."""
    async with client_of(gateway) as http:
        return await http.post("/x", headers={"Connection": "close"})
