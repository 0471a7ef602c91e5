"""What happens when a pod fails: another is tried while the client has no byte, and none afterwards."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of
from tests.nginx.resources import pool, route, rule, to_pool
from tests.nginx.servers import Answer, Request, close, nobody, reset, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

BODY = bytes(range(256)) * 1200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    """A gateway that waits half a second for a pod's first byte."""
    edits = {"proxy_read_timeout 3600s": "proxy_read_timeout 500ms"}
    async with run(root, nginx, edits=edits) as gateway:
        yield gateway


@pytest.fixture
def dead() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(nobody()) for _ in range(3)]


async def _serve(gateway: Gateway, *addresses: str, mode: str = "FailClose") -> None:
    """Sends every path to these pods."""
    await gateway.apply("routes.yaml", pool("gpu", *addresses, mode=mode), route("all", rule(to_pool("gpu"))))
    await gateway.knows("default/gpu", *addresses)


@pytest.mark.parametrize("count", [1, 2])
async def test_dead_pods_are_passed_over(
    gateway: Gateway, http: httpx.AsyncClient, dead: list[str], count: int
) -> None:
    async with serve() as pod:
        await _serve(gateway, *dead[:count], pod.address)
        before = len(gateway.log_lines())
        answers = [await http.post("/", content=BODY) for _ in range(20)]
        assert {(answer.status_code, answer.json()["size"]) for answer in answers} == {(200, len(BODY))}
        last = await gateway.logged(answers[-1].headers["x-request-id"])
        assert (last["endpoint"], last["tries"]) == (pod.address, 1)
        first = await gateway.logged(answers[0].headers["x-request-id"])
        assert len(gateway.log_lines()) == before + 20
        assert first["tries"] == 1 + sum(address in first["tried"] for address in dead)


@pytest.mark.parametrize("fault", [reset, close])
async def test_pod_that_hangs_up_before_a_byte_is_passed_over(
    gateway: Gateway, http: httpx.AsyncClient, fault: Answer
) -> None:
    async with serve(fault) as broken, serve() as pod:
        await _serve(gateway, broken.address, pod.address)
        answers = [await http.post("/", content=BODY) for _ in range(20)]
        assert {(answer.status_code, answer.json()["size"]) for answer in answers} == {(200, len(BODY))}
        assert all(request.body == BODY for request in broken.requests)
        assert len(pod.requests) == 20


async def test_retries_are_shared_by_a_burst(gateway: Gateway, dead: list[str]) -> None:
    async with serve() as one, serve() as two, client_of(gateway) as http:
        await _serve(gateway, dead[0], one.address, two.address)
        answers = await asyncio.gather(*(http.post("/", content=b"x") for _ in range(100)))
        assert Counter(answer.status_code for answer in answers) == {200: 100}
        assert len(one.requests) + len(two.requests) == 100
    await gateway.idle()


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
async def test_all_pods_dead_is_502_in_json(
    gateway: Gateway, http: httpx.AsyncClient, dead: list[str], mode: str
) -> None:
    await _serve(gateway, *dead, mode=mode)
    answer = await http.post("/", content=b"x")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")
    assert answer.json()["error"]["code"] == "endpoints_failed"
    assert (await gateway.logged(answer.headers["x-request-id"]))["tries"] == 3
    await gateway.idle()


async def test_pod_that_is_back_is_used_again(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(flaky.requests) == 1:
            await reset(request, writer)
        else:
            writer.write(response())

    async with serve(answer) as flaky:
        await _serve(gateway, flaky.address)
        assert (await http.post("/", content=b"x")).status_code == 502
        assert (await http.post("/", content=b"x")).status_code == 200


async def test_pod_that_takes_too_long_is_not_tried_again(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        await request.hung_up()

    async with serve(hang) as one, serve(hang) as two:
        await _serve(gateway, one.address, two.address)
        answer = await http.post("/", content=b"x")
        assert (answer.status_code, answer.headers["content-type"]) == (504, "application/json")
        assert len(one.requests) + len(two.requests) == 1
    await gateway.idle()


async def _begin(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    if request.target != "/headers":
        writer.write(b"9\r\ndata: 1\n\n\r\n")
    await writer.drain()
    # The kernel drops what was not sent when a connection is reset, so it is ended in order.
    writer.close()


@pytest.mark.parametrize("path", ["/headers", "/events"])
async def test_answer_that_breaks_off_is_not_tried_again(gateway: Gateway, path: str) -> None:
    async with serve(_begin) as one, serve(_begin) as two, client_of(gateway) as http:
        await _serve(gateway, one.address, two.address)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(path, content=b"x")
        assert len(one.requests) + len(two.requests) == 1
    await gateway.idle()


@pytest.mark.parametrize("status", [400, 404, 415, 429, 500, 502, 503, 504])
async def test_error_that_a_pod_answers_is_the_answer(gateway: Gateway, http: httpx.AsyncClient, status: int) -> None:
    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b'{"why":1}', "Content-Type: application/json", "Retry-After: 3", status=f"{status} No"))

    async with serve(refuse) as one, serve(refuse) as two:
        await _serve(gateway, one.address, two.address)
        answer = await http.post("/", content=b"x")
        assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (status, b'{"why":1}', "3")
        assert len(one.requests) + len(two.requests) == 1


async def test_kept_connection_that_the_pod_closed_costs_no_error(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response())
        await writer.drain()
        writer.close()  # without saying so in the answer

    async with serve(once) as pod:
        await _serve(gateway, pod.address)
        answers = [await http.post("/", content=b"x") for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        assert len(pod.requests) == 20
