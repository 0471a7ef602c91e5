"""What a request to a pool is like at the pod, and its answer at the client."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
import websockets

from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, client_of
from tests.nginx.resources import pool, route, rule, to_pool
from tests.nginx.servers import Backend, Request, connect, exchange, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pods(gateway: Gateway) -> AsyncIterator[tuple[Backend, Simulation]]:
    """A pod for all paths, and a simulated model server for those below /v1/chat and for /v1/realtime."""
    settings = PodSettings(name="a", model="base", speed=50)
    async with serve(_describe_or_send) as described, await simulate([settings]) as simulation:
        await gateway.apply(
            "routes.yaml",
            pool("described", described.address),
            pool("simulated", simulation.addresses["a"]),
            route(
                "all",
                rule(to_pool("described")),
                rule(to_pool("simulated"), path="/v1/chat"),
                rule(to_pool("simulated"), path="/v1/realtime"),
            ),
        )
        yield described, simulation


@pytest.fixture
def pod(pods: tuple[Backend, Simulation]) -> Backend:
    return pods[0]


async def _describe_or_send(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answers with as many bytes, or as long headers, as the path says; else with what arrived."""
    kind, _, amount = request.target.removeprefix("/").partition("/")
    if kind == "bytes":
        writer.write(response(b"x" * int(amount)))
    elif kind == "headers":
        writer.write(response(b"ok", *(f"X-Long-{number}: {'v' * 1000}" for number in range(int(amount)))))
    else:
        shown = {"id": request.values("x-request-id"), "size": len(request.body), "sha256": _digest(request.body)}
        writer.write(response(json.dumps(shown).encode(), "X-Request-Id: of-the-pod"))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def test_method_path_query_and_body_arrive_as_sent(gateway: Gateway, pod: Backend) -> None:
    target = "/v1/a%2Fb;c=1/%7Ed//e/./f/../%20%c3%A4?q=%20x+y&q=&=z&%2F??#"
    sent = f"PATCH {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\n".encode()
    answer = await exchange(gateway.port, sent + b"\0\r\n\xffbody")
    arrived = pod.requests[-1]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert (arrived.method, arrived.target, arrived.body) == ("PATCH", target, b"\0\r\n\xffbody")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_methods_without_a_body_are_picked_too(http: httpx.AsyncClient, pod: Backend, method: str) -> None:
    answer = await http.request(method, "/v1/models")
    assert (answer.status_code, pod.requests[-1].method) == (200, method)


async def test_target_with_bytes_that_no_url_has_is_refused(gateway: Gateway, pod: Backend) -> None:
    before = len(pod.requests)
    answer = await exchange(gateway.port, b"GET /\xc3\xa4?\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(pod.requests) == before


async def test_request_id_of_the_client_is_kept_everywhere(
    gateway: Gateway, http: httpx.AsyncClient, pod: Backend
) -> None:
    answer = await http.get("/v1/models", headers={"X-Request-Id": "my-own.id:1"})
    assert pod.requests[-1].values("x-request-id") == ["my-own.id:1"]
    assert answer.headers.get_list("x-request-id") == ["my-own.id:1"]
    assert (await gateway.logged("my-own.id:1"))["pool"] == "default/described"


async def test_request_without_an_id_gets_one(gateway: Gateway, http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.get("/v1/models")
    (made,) = answer.headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert pod.requests[-1].values("x-request-id") == [made]
    assert (await gateway.logged(made))["status"] == 200


@pytest.mark.parametrize("value", ["a" * 129, 'has"a space', "caf\u00e9", "a\tb", ""])
async def test_request_id_that_is_not_sane_is_replaced(http: httpx.AsyncClient, pod: Backend, value: str) -> None:
    answer = await http.get("/v1/models", headers=[(b"X-Request-Id", value.encode())])
    (made,) = answer.headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert pod.requests[-1].values("x-request-id") == [made]


async def test_pod_learns_of_client_host_and_scheme(gateway: Gateway, http: httpx.AsyncClient, pod: Backend) -> None:
    await http.get("/", headers={"Host": "models.example", "X-Forwarded-For": "10.0.0.9", "X-Real-IP": "10.0.0.9"})
    arrived = pod.requests[-1]
    assert arrived.values("host") == ["models.example"]
    assert arrived.values("x-forwarded-for") == ["10.0.0.9, 127.0.0.1"]
    assert arrived.values("x-forwarded-proto") == ["http"]
    assert arrived.values("x-real-ip") == ["127.0.0.1"]


@pytest.mark.parametrize("size", [1, 16 * 1024, 300 * 1024, 50 * MIB])
async def test_body_of_any_size_arrives_whole(http: httpx.AsyncClient, pod: Backend, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = await http.post("/v1/completions", content=body)
    assert (answer.json()["size"], answer.json()["sha256"]) == (size, _digest(body))
    pod.requests.clear()


@pytest.mark.parametrize("size", [1, 100_000])
async def test_chunked_body_arrives_whole(http: httpx.AsyncClient, pod: Backend, size: int) -> None:
    pieces = [bytes([number]) * size for number in range(7)]

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    answer = await http.post("/v1/completions", content=body())
    assert answer.json()["sha256"] == _digest(b"".join(pieces))


async def test_empty_chunked_body_is_a_body_of_no_bytes(gateway: Gateway, pod: Backend) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await exchange(gateway.port, head + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert pod.requests[-1].body == b""


async def test_client_that_expects_100_is_told_to_go_on(gateway: Gateway, pod: Backend) -> None:
    async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert pod.requests[-1].body == b"hello"
    assert pod.requests[-1].values("expect") == []


async def test_body_above_the_limit_is_413_in_json(gateway: Gateway, pod: Backend) -> None:
    before = len(pod.requests)
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {128 * MIB + 1}\r\nExpect: 100-continue\r\n\r\n"
    async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
        writer.write(head.encode())
        answered = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readline()
    assert answered.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "request_too_large"
    assert len(pod.requests) == before


async def test_answer_of_20_mb_arrives_whole(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.get(f"/bytes/{20 * MIB}")
    assert answer.content == b"x" * 20 * MIB


@pytest.mark.usefixtures("pod")
async def test_answer_with_16_kb_of_headers_passes(http: httpx.AsyncClient) -> None:
    answer = await http.get("/headers/16")
    assert (answer.status_code, answer.headers["x-long-15"]) == (200, "v" * 1000)


async def test_request_with_16_kb_of_headers_passes(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.get("/", headers={f"X-Long-{number}": "v" * 1000 for number in range(16)})
    assert (answer.status_code, pod.requests[-1].values("x-long-15")) == (200, ["v" * 1000])


async def test_single_header_of_16_kb_passes(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.get("/", headers={"Authorization": "Bearer " + "t" * 16_000})
    assert answer.status_code == 200
    assert pod.requests[-1].values("authorization") == ["Bearer " + "t" * 16_000]


async def test_h2c_client_is_served(gateway: Gateway, pod: Backend) -> None:
    async with client_of(gateway, http2=True) as http:
        answers = await asyncio.gather(*(http.post("/v1/x?y=1", content=b"z" * 70_000) for _ in range(20)))
    assert {(answer.http_version, answer.status_code, answer.json()["size"]) for answer in answers} == {
        ("HTTP/2", 200, 70_000)
    }
    assert pod.requests[-1].target == "/v1/x?y=1"


async def test_websocket_echoes_text_and_bytes(gateway: Gateway, pods: tuple[Backend, Simulation]) -> None:
    uri = f"ws://127.0.0.1:{gateway.port}/v1/realtime?model=base"
    async with asyncio.timeout(15), websockets.connect(uri, proxy=None, max_size=None) as session:
        for message in ("hello", b"\0\xff", "x" * 200_000):
            await session.send(message)
            assert await session.recv() == message
    assert pods[1].pod("a").arrivals[-1].path == "/v1/realtime?model=base"
    await gateway.idle()


async def test_many_websockets_one_after_the_other_are_picked(
    gateway: Gateway, pods: tuple[Backend, Simulation]
) -> None:
    for number in range(20):
        uri = f"ws://127.0.0.1:{gateway.port}/v1/realtime"
        async with asyncio.timeout(15), websockets.connect(uri, proxy=None) as session:
            await session.send(str(number))
            assert await session.recv() == str(number)


async def test_two_requests_on_one_connection_are_both_picked(gateway: Gateway, pod: Backend) -> None:
    one = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    two = b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = await exchange(gateway.port, one + two)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert [request.target for request in pod.requests[-2:]] == ["/1", "/2"]


async def test_http_1_0_client_is_served(gateway: Gateway, pod: Backend) -> None:
    answer = await exchange(gateway.port, b"GET /old HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert pod.requests[-1].target == "/old"


async def test_nothing_is_in_flight_afterwards(gateway: Gateway, http: httpx.AsyncClient, pod: Backend) -> None:
    await asyncio.gather(*(http.post("/", content=b"x") for _ in range(200)))
    await gateway.idle()
