"""Our own picker as other gateways run it, a process that serves ext_proc, started again when it dies or hangs."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from controller.pools import Pool, encode_pools, pools_of
from tests.nginx.gateway import SECONDS, eventually
from tests.ports import free_ports

_PROBED_EVERY = 1.0
_PROBE_TIMEOUT = 3.0
_MOST_MISSED = 2
"""The relay gives a picker up after 5 s; a process that is merely slow is to be left alone."""


class RunningPicker:
    """The picker of a pool."""

    def __init__(self, directory: Path) -> None:
        """It keeps its files in the directory, which is made."""
        directory.mkdir()
        self._directory = directory
        port, admin = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self._admin_address = f"127.0.0.1:{admin}"
        self._admin = httpx.AsyncClient(base_url=f"http://{self._admin_address}", timeout=5.0, trust_env=False)
        self._process: asyncio.subprocess.Process | None = None
        self.has_begun = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def serve(self, pool: Pool) -> None:
        """Replace the pools file, and wait until it is served."""
        pools = pools_of((pool,))
        fresh = self._directory / "pools.new"
        fresh.write_bytes(encode_pools(pools))
        fresh.replace(self._directory / "pools.json")

        async def is_served() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await self._admin.get("/readyz")).text == f"ok {pools.etag}\n"
            return False

        await eventually(is_served, seconds=3 * SECONDS)

    async def pools(self) -> dict[str, Any]:  # Any: JSON
        """What it shows of its pool; empty when it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            return dict((await self._admin.get("/pools")).json())
        return {}

    async def metrics(self) -> list[str]:
        """Lines of its metrics; none when it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            return (await self._admin.get("/metrics")).text.splitlines()
        return []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it, and start it again when it ends."""
        self.has_begun = True
        supervising = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            supervising.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervising
            if self._process is not None:
                await self._process.wait()
            await self._admin.aclose()

    async def _supervise(self) -> None:
        command = (
            *(sys.executable, "-m", "controller", "--log-format", "bare", "picker", "--ext-proc", self.address),
            *("--pools", str(self._directory / "pools.json"), "--metrics-address", self._admin_address),
            *("--drain-timeout", "0", "--grace", "1"),
        )
        with (self._directory / "log").open("ab") as log:
            while True:
                self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
                ends = [asyncio.create_task(end) for end in (self._process.wait(), self._hangs())]
                try:
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for end in ends:
                        end.cancel()
                    with contextlib.suppress(ProcessLookupError):
                        self._process.kill()
                await self._process.wait()

    async def _hangs(self) -> None:
        """Returns once it takes requests and answers none, as the liveness probe of a Deployment finds out."""
        missed = 0
        while missed < _MOST_MISSED:
            await asyncio.sleep(_PROBED_EVERY)
            try:
                await self._admin.get("/healthz", timeout=_PROBE_TIMEOUT)
            except httpx.ReadTimeout:
                missed += 1
            except httpx.TransportError:
                pass  # it begins, or ends
            else:
                missed = 0
