"""Answers that come bit by bit. Each side waits for the other, so that a gateway that holds anything back is found."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import SECONDS, Gateway, until
from tests.nginx.resources import header, pool, response_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, connect, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

EVENTS = [b'data: {"token": %d, "text": "%s"}\n\n' % (number, b"x" * (number * 7 % 200)) for number in range(40)]
ROUTES = ("/picked", "/changed", "/service")


class Stage:
    """Sends one event each time it is told to."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew. A queue belongs to the loop in which it is waited at first, and each module has its own."""
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.sent_at: list[float] = []

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Ends with an event of no bytes."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while event := await self.events.get():
            self.sent_at.append(time.monotonic())
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")


STAGE = Stage()


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    STAGE.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway) -> AsyncIterator[Backend]:
    """Behind a pool, a pool with a filter, and a Service."""
    async with serve(STAGE.answer) as pod:
        filters = [response_headers(add=[header("X-Filtered", "yes")])]
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address),
            service("cpu", pod.address),
            route(
                "all",
                rule(to_pool("gpu"), path="/picked"),
                rule(to_pool("gpu"), path="/changed", filters=filters),
                rule(to_service("cpu"), path="/service"),
            ),
        )
        yield pod


@asynccontextmanager
async def _streaming(url: str, *, http2: bool = False) -> AsyncIterator[httpx.Response]:
    async with (
        httpx.AsyncClient(http1=not http2, http2=http2, timeout=SECONDS, trust_env=False) as http,
        http.stream("POST", url, content=b"{}", headers={"Accept-Encoding": "gzip, br"}) as answer,
    ):
        yield answer


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("path", ROUTES)
async def test_each_event_arrives_before_the_next_is_sent(gateway: Gateway, path: str, http2: bool) -> None:
    async with asyncio.timeout(SECONDS), _streaming(gateway.url + path, http2=http2) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in answer.headers
        pieces = answer.aiter_raw()
        for event in EVENTS:
            STAGE.events.put_nowait(event)
            received = b""
            while len(received) < len(event):
                received += await anext(pieces)
            assert received == event
        STAGE.events.put_nowait(b"")
        assert [piece async for piece in pieces] == []


async def test_stream_is_byte_equal_to_a_direct_one(gateway: Gateway, pod: Backend) -> None:
    bodies = []
    for url in (f"http://{pod.address}/picked", f"{gateway.url}/picked"):
        for event in (*EVENTS, b""):
            STAGE.events.put_nowait(event)
        async with asyncio.timeout(SECONDS), _streaming(url) as answer:
            bodies.append(b"".join([piece async for piece in answer.aiter_raw()]))
    assert bodies[0] == bodies[1] == b"".join(EVENTS)


@pytest.mark.usefixtures("pod")
async def test_times_between_events_are_kept(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    for number, event in enumerate((*EVENTS[:20], b"")):
        loop.call_later(0.02 * number, STAGE.events.put_nowait, event)
    async with asyncio.timeout(SECONDS), _streaming(f"{gateway.url}/picked") as answer:
        arrived = [time.monotonic() async for piece in answer.aiter_raw() for _ in range(piece.count(b"data:"))]
    lags = sorted(there - sent for sent, there in zip(STAGE.sent_at, arrived, strict=True))
    # About 0.3 ms on an idle machine; a buffer that is filled first would take as long as the stream.
    assert lags[len(lags) // 2] < 0.02


async def test_headers_of_a_stream_come_before_its_first_event(gateway: Gateway, pod: Backend) -> None:
    async with asyncio.timeout(SECONDS), _streaming(f"{gateway.url}/picked") as answer:
        assert answer.status_code == 200
        STAGE.events.put_nowait(b"data: 1\n\n")
        STAGE.events.put_nowait(b"")
        assert await answer.aread() == b"data: 1\n\n"


async def test_client_that_reads_nothing_costs_no_memory_without_bound(gateway: Gateway, pod: Backend) -> None:
    """The pod is slowed down to the pace of the client."""
    for _ in range(64):
        STAGE.events.put_nowait(b"x" * 1024 * 1024)
    STAGE.events.put_nowait(b"")
    async with asyncio.timeout(SECONDS), connect(gateway.port) as (reader, writer):
        writer.write(b"GET /picked HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await until(lambda: len(STAGE.sent_at) > 1)
        counts = itertools.pairwise([await _settled() for _ in range(2)])
        assert all(one == two < 64 for one, two in counts)
        size = 0
        while piece := await reader.read(1024 * 1024):
            size += len(piece)
    assert size > 64 * 1024 * 1024


async def _settled() -> int:
    """How many events were sent, once no more are."""
    quiet = 0
    sent = len(STAGE.sent_at)
    while quiet < 20:
        await asyncio.sleep(0.01)
        quiet = quiet + 1 if len(STAGE.sent_at) == sent else 0
        sent = len(STAGE.sent_at)
    return sent
