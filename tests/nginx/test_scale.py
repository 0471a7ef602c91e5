"""Many of what there usually are few: endpoints, streams, large bodies."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of, eventually, until
from tests.nginx.resources import pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import Request, connect, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

STREAMS = 1000
SECONDS = float(os.environ.get("INFERGATE_TEST_STREAM_SECONDS", "6"))
"""For which streams are open; 600 for the promise itself."""
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"token " * 500)
LARGE = 5
GROWTH = 5_000_000
"""Bytes; that is 5 KB a stream, less than its events of a few seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    edits = {"limit_conn infergate_large 4096;": f"limit_conn infergate_large {LARGE};"}
    async with run(root, nginx, edits=edits) as gateway:
        yield gateway


async def _where(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(response(writer.get_extra_info("sockname")[0].encode()))


@pytest.mark.parametrize("target", [to_service("many"), to_pool("many")])
async def test_1000_endpoints_serve(gateway: Gateway, target: dict[str, object]) -> None:
    async with serve(_where, host="0.0.0.0") as backend:
        port = backend.address.rpartition(":")[2]
        addresses = [f"127.1.{n // 250}.{n % 250 + 1}:{port}" for n in range(1000)]
        await gateway.apply(
            "many.yaml", pool("many", *addresses), service("many", *addresses), route("all", rule(target))
        )
        async with client_of(gateway) as http:
            answers = await asyncio.gather(*(http.post("/", content=b"x") for _ in range(600)))
        assert {answer.status_code for answer in answers} == {200}
        # Workers walk through the same list, each on its own.
        assert len({answer.text for answer in answers}) >= 250
        await gateway.idle()


async def _stream(request: Request, writer: asyncio.StreamWriter) -> None:
    """An event each second until the time is over."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        await writer.drain()
        await asyncio.sleep(1.0)
    writer.write(b"0\r\n\r\n")


async def _read_stream(gateway: Gateway) -> int:
    """Events of a stream that ends as it should."""
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Tell me."}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with connect(gateway.port) as (reader, writer):
        writer.write(head + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"\r\n\r\n")
        events = 0
        while size := int(await reader.readline(), 16):
            events += (await reader.readexactly(size + 2)).count(b"data: ")
        assert await reader.readline() == b"\r\n"
        return events


def _resident(gateway: Gateway) -> int:
    """Bytes of nginx's workers and the picker."""
    processes = [*gateway.workers(), *gateway.picker_pids()]
    return sum(
        int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for each in processes
    )


async def test_1000_streams_end_well_and_memory_is_flat(root: Path, nginx: Nginx, run: Run) -> None:
    # Streams are longer than a read may take here, so what counts is the pause between two events.
    edits = {"proxy_read_timeout 3600s;": f"proxy_read_timeout {SECONDS * 0.8:.0f}s;"}
    async with (
        run(root / "streams", nginx, edits=edits) as gateway,
        serve(_stream) as one,
        serve(_stream) as two,
    ):
        await gateway.apply("many.yaml", pool("many", one.address, two.address), route("all", rule(to_pool("many"))))
        streams = [asyncio.create_task(_read_stream(gateway)) for _ in range(STREAMS)]
        await until(lambda: len(one.requests) + len(two.requests) == STREAMS)
        await eventually(lambda: gateway.counts(STREAMS))
        await asyncio.wait(streams, timeout=SECONDS * 0.4)
        before = _resident(gateway)
        await asyncio.wait(streams, timeout=SECONDS * 0.4)
        grown = _resident(gateway) - before
        assert min(await asyncio.gather(*streams)) >= SECONDS / 3
        assert grown < GROWTH
        await gateway.idle()


async def test_large_bodies_are_bounded_in_number_and_small_ones_pass(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(request.body) > 1000:
            await go_on.wait()
        writer.write(response(b"ok"))

    async with serve(answer) as pod:
        await gateway.apply("many.yaml", pool("many", pod.address), route("all", rule(to_pool("many"))))
        async with client_of(gateway) as http:
            held = [asyncio.create_task(http.post("/", content=b"x" * 100_000)) for _ in range(LARGE)]
            await until(lambda: len(pod.requests) == LARGE)
            for content in (b"x" * 100_000, _pieces()):
                refused = await http.post("/", content=content)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert json.loads(refused.content)["error"]["code"] == "too_many_large_requests"
            assert (await http.post("/", content=b"x" * 1000)).status_code == 200
            go_on.set()
            assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
            assert (await http.post("/", content=b"x" * 100_000)).status_code == 200


async def _pieces() -> AsyncIterator[bytes]:
    """A body whose length nobody tells."""
    with contextlib.suppress(OSError):
        for _ in range(10):
            yield b"x" * 1000
