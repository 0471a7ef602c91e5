"""Memory of nginx while many large bodies are under way, where the model in them is read, and where it is rewritten.

INFERGATE_LARGE_BODIES is how many of 20 MB are under way at once; 200 take 4 GB of disk for a while, and a machine that
does nothing else: what looks after the picker is in the process that sends them.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, eventually
from tests.nginx.resources import model_rewrite, pool, renamed, route, rule, to_pool
from tests.nginx.servers import response

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

COUNT: Final = int(os.environ.get("INFERGATE_LARGE_BODIES", "12"))
"""More than the picker receives at a time."""
SIZE: Final = 20_000_000
SECONDS: Final = 30.0 + 3.0 * COUNT
LIMIT_KB: Final = 300 * 1024
REWRITTEN: Final = 2_000_000
BUDGET: Final = 14_000_000
"""For three of those, each of which takes twice its length."""


class Sink:
    """A model server that keeps nothing of a body, and answers when it is told to."""

    def __init__(self) -> None:
        self.address = ""
        self.arrived = 0
        """Bodies that are there as a whole."""
        self.go = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length: " not in head:
                    writer.write(response(status="404 Not Found"))
                    continue
                left = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                while left and (piece := await reader.read(min(left, 262_144))):
                    left -= len(piece)
                self.arrived += 1
                await self.go.wait()
                writer.write(response(b'{"model":"target"}', "Content-Type: application/json"))
                await writer.drain()
        writer.close()


@asynccontextmanager
async def _sink() -> AsyncIterator[Sink]:
    sink = Sink()
    server = await asyncio.start_server(sink.converse, "127.0.0.1", 0, backlog=1024)
    sink.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield sink
    finally:
        sink.go.set()
        server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[tuple[Gateway, Sink]]:
    model = {"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": "X-Gateway-Model-Name", "value": "m"}]}
    edits = {"set $infergate_rewritten_budget 268435456;": f"set $infergate_rewritten_budget {BUDGET};"}
    async with _sink() as sink, run(root, nginx, edits=edits) as gateway:
        await gateway.apply(
            "routes.yaml",
            pool("read", sink.address),
            pool("rewritten", sink.address),
            model_rewrite("names", "rewritten", renamed("m", target=1)),
            route("read", rule(to_pool("read"), matches=[model]), hostnames=["read.example"]),
            route("rewritten", rule(to_pool("rewritten")), hostnames=["rewritten.example"]),
        )
        yield gateway, sink


async def _post(gateway: Gateway, host: str, *, size: int) -> int:
    piece = b"x" * 1_000_000

    async def body() -> AsyncIterator[bytes]:
        head, tail = b'{"messages":"', b'","model":"m"}'
        yield head
        for _ in range(size // len(piece) - 1):
            yield piece
        yield b"x" * (len(piece) - len(head) - len(tail)) + tail

    headers = {"host": host, "content-type": "application/json", "content-length": str(size)}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS, trust_env=False) as http:
        return (await http.post("/v1/chat/completions", content=body(), headers=headers)).status_code


def _resident(gateway: Gateway) -> int:
    """KB of nginx, its master and its workers; one that ended has none."""
    lines = [
        line
        for process in {gateway.data_plane.nginx_pid, *gateway.workers()}
        for line in Path(f"/proc/{process}/status").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _peak_of_picker(gateway: Gateway) -> int:
    """KB, of its whole life."""
    lines = Path(f"/proc/{gateway.data_plane.picker_pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def test_large_bodies_whose_model_is_read_take_little_memory(running: tuple[Gateway, Sink]) -> None:
    gateway, sink = running
    sink.go.clear()
    sink.arrived = 0
    peak = 0

    async def all_arrived() -> bool:
        nonlocal peak
        peak = max(peak, _resident(gateway))
        return sink.arrived == COUNT

    asked = [asyncio.create_task(_post(gateway, "read.example", size=SIZE)) for _ in range(COUNT)]
    await eventually(all_arrived, seconds=SECONDS)
    sink.go.set()
    assert await asyncio.gather(*asked) == [200] * COUNT
    picker = _peak_of_picker(gateway)
    log.info("%d bodies, resident at most %d KB, and the picker %d KB", COUNT, peak, picker)
    assert peak < LIMIT_KB
    assert picker < LIMIT_KB


async def test_large_bodies_that_are_rewritten_have_a_budget(running: tuple[Gateway, Sink]) -> None:
    """One after the other, since two at once may both be refused; what ends gives its part back."""
    gateway, sink = running
    for _ in range(2):
        sink.go.clear()
        sink.arrived = 0
        asked: list[asyncio.Task[int]] = []
        for number in range(5):
            asked.append(asyncio.create_task(_post(gateway, "rewritten.example", size=REWRITTEN)))

            async def is_settled() -> bool:
                return sink.arrived + sum(task.done() for task in asked) > number  # noqa: B023 - asked at once

            await eventually(is_settled, seconds=SECONDS)
        sink.go.set()
        assert await asyncio.gather(*asked) == [200] * 3 + [429] * 2


async def test_clients_that_leave_give_their_part_back(running: tuple[Gateway, Sink]) -> None:
    gateway, sink = running
    for _ in range(3):
        sink.go.clear()
        sink.arrived = 0
        asked: list[asyncio.Task[int]] = []
        for number in range(3):
            asked.append(asyncio.create_task(_post(gateway, "rewritten.example", size=REWRITTEN)))
            await eventually(lambda: _is(sink.arrived > number), seconds=SECONDS)  # noqa: B023 - asked at once
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await gateway.idle()
        sink.go.set()


async def _is(condition: bool) -> bool:
    return condition


async def test_body_above_the_budget_is_rewritten_when_it_is_alone(running: tuple[Gateway, Sink]) -> None:
    gateway, sink = running
    sink.go.set()
    assert await _post(gateway, "rewritten.example", size=SIZE) == 200
