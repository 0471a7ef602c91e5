"""The picker as a process of its own, for what only a process shows: its memory, its sockets, how often it wakes up."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from controller.pools import Pool, encode_pools, pools_of

WITHIN = 60.0
"""Seconds for whatever is waited for."""


@dataclass(frozen=True)
class PickerProcess:
    """A running picker."""

    pid: int
    socket: Path
    """On which it is asked."""
    completions: Path
    """To which NGINX would append what ended."""

    async def get(self, path: str) -> httpx.Response:
        """The answer to a GET, on a connection of its own."""
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(self.socket))) as client:
            return await client.get(f"http://picker{path}", timeout=WITHIN)


@asynccontextmanager
async def picker_process(root: Path, pool: Pool, *options: str) -> AsyncIterator[PickerProcess]:
    """Runs `infergate picker` for one pool, in a directory of short name, until the context ends."""
    pools, socket, completions = root / "pools.json", root / "s", root / "ends"
    pools.write_bytes(encode_pools(pools_of((pool,))))
    paths = (f"--socket={socket}", f"--pools={pools}", f"--completions={completions}")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "controller", "picker", *paths, *options)
    running = PickerProcess(process.pid, socket, completions)
    try:
        await _until_ready(running, process)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_ready(running: PickerProcess, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(WITHIN):
        while process.returncode is None:
            try:
                if (await running.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise ChildProcessError(f"the picker ended with {process.returncode}")
