"""What 2,000 requests that wait cost the picker's process."""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.bundle import Pool, PoolEndpoint, encode_pools, pools_of
from controller.plugins.types import Admission, AppliedPolicy, DetectorConfig, FlowControlConfig
from tools.bench.bodies import chat_body
from tools.bench.processes import memory

WAITING = 2000
MOST = 100_000_000
"""Bytes that they may add."""
WITHIN = 60.0


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
    async with _picker(tmp_path) as (process, socket), AsyncExitStack() as stack:
        # What any request makes it load, is loaded.
        async with asyncio.timeout(WITHIN):
            answer = await (await _ask(socket, body, number=0, stack=stack)).readuntil(b"\r\n\r\n")
        assert b"x-accel-redirect" in answer
        before = memory(process.pid).resident
        async with asyncio.timeout(WITHIN):
            for number in range(1, WAITING + 1):
                await _ask(socket, body, number=number, stack=stack)
        await _queue_is(socket, WAITING)
        more = memory(process.pid).resident - before
        await stack.aclose()
        await _queue_is(socket, 0)
    assert more < MOST, f"{more / 1e6:.0f} MB"


@asynccontextmanager
async def _picker(root: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """The process, and the socket on which it is asked, for a pool that takes one request at a time."""
    detector = DetectorConfig("concurrency-detector", {"maxConcurrency": 1})
    policy = AppliedPolicy(admission=Admission(flow_control=FlowControlConfig(saturation_detector=detector)))
    pool = Pool(name="llm/gpu", endpoints=(PoolEndpoint(address="127.0.0.1:9", name="llm/a"),), policy=policy)
    pools, socket = root / "pools.json", root / "s"
    pools.write_bytes(encode_pools(pools_of((pool,))))
    command = (sys.executable, "-m", "controller", "picker", "--socket", socket, "--pools", pools)
    process = await asyncio.create_subprocess_exec(*command, "--completions", root / "ends")
    try:
        await _until_ready(socket, process)
        yield process, socket
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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


async def _until_ready(socket: Path, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WITHIN):
        while process.returncode is None:
            try:
                if (await _get(socket, "/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)


async def _queue_is(socket: Path, count: int) -> None:
    """Waits until so many requests wait."""
    async with asyncio.timeout(WITHIN):
        while True:
            lines = (await _get(socket, "/metrics")).text.splitlines()
            sizes = [line for line in lines if line.startswith("infergate_flow_control_queue_size{")]
            if sum(float(line.split()[-1]) for line in sizes) == count:
                return


async def _get(socket: Path, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket))) as client:
        return await client.get(f"http://picker{path}", timeout=WITHIN)
