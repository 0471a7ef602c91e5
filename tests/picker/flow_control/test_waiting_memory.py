"""What 2,000 requests that wait cost the picker's process."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controller.plugins.types import Admission, AppliedPolicy, DetectorConfig, FlowControlConfig
from controller.pools import Pool, PoolEndpoint
from tests.picker.processes import WITHIN, PickerProcess, picker_process
from tools.bench.bodies import chat_body
from tools.bench.processes import memory

WAITING = 2000
MOST = 100_000_000
"""Bytes that they may add."""
DETECTOR = DetectorConfig("concurrency-detector", {"maxConcurrency": 1})
BUSY = Pool(
    name="llm/gpu",
    endpoints=(PoolEndpoint(address="127.0.0.1:9", name="llm/a"),),
    policy=AppliedPolicy(admission=Admission(flow_control=FlowControlConfig(saturation_detector=DETECTOR))),
)
"""A pool that takes one request at a time."""


@pytest.fixture
def _files() -> Iterator[None]:
    """As many open files as there are connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = WAITING + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may open {hard} files, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed) if soft != resource.RLIM_INFINITY else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("size", [1_000, 200_000])
async def test_2000_waiting_requests_take_less_than_100_mb(tmp_path: Path, size: int) -> None:
    body = chat_body(size)
    async with picker_process(tmp_path, BUSY) as process, AsyncExitStack() as stack:
        # What any request makes it load, is loaded.
        async with asyncio.timeout(WITHIN):
            answer = await (await _ask(process.socket, body, number=0, stack=stack)).readuntil(b"\r\n\r\n")
        assert b"x-accel-redirect" in answer
        before = memory(process.pid).resident
        async with asyncio.timeout(WITHIN):
            for number in range(1, WAITING + 1):
                await _ask(process.socket, body, number=number, stack=stack)
        await _queue_is(process, WAITING)
        more = memory(process.pid).resident - before
        await stack.aclose()
        await _queue_is(process, 0)
    assert more < MOST, f"{more / 1e6:.0f} MB"


async def _ask(socket: Path, body: bytes, *, number: int, stack: AsyncExitStack) -> asyncio.StreamReader:
    """Ask as NGINX does, on a connection that is closed with the stack. Where the answer comes."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    stack.callback(writer.close)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-infergate-pool: llm/gpu\r\n"
        f"x-infergate-request: {number:032x}\r\nx-infergate-then: @serve\r\nx-forwarded-for: 10.0.0.{number % 200}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return reader


async def _queue_is(process: PickerProcess, count: int) -> None:
    """Waits until so many requests wait."""
    async with asyncio.timeout(WITHIN):
        while True:
            lines = (await process.get("/metrics")).text.splitlines()
            sizes = [line for line in lines if line.startswith("infergate_flow_control_queue_size{")]
            if sum(float(line.split()[-1]) for line in sizes) == count:
                return
