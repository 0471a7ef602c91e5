"""A real Envoy that asks a picker where requests go."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.nginx.gateway import eventually
from tests.ports import free_ports
from tools.envoy import configuration


@dataclass
class Envoy:
    """A running Envoy."""

    port: int
    admin: httpx.AsyncClient
    http: httpx.AsyncClient

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stat(self, name: str) -> int:
        """A counter or gauge."""
        lines = (await self.admin.get("/stats", params={"filter": f"^{name}$", "format": "text"})).text.split()
        return int(lines[-1]) if lines else 0


@contextlib.asynccontextmanager
async def run_envoy(
    binary: Path,
    directory: Path,
    picker: str,
    **settings: Any,  # Any: of the configuration
) -> AsyncIterator[Envoy]:
    """An Envoy whose requests go where a picker says. `settings` are those of `configuration`."""
    port, admin = free_ports(2)
    path = directory / "envoy.json"
    path.write_text(json.dumps(configuration(picker, port=port, admin=admin, **settings)))
    with (directory / "envoy.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            binary, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
            stdout=log, stderr=log, env={**os.environ, "HOME": str(directory)},
        )  # fmt: skip
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}") as admin_client,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=httpx.Limits()) as client,
        ):
            envoy = Envoy(port, admin_client, client)

            async def is_ready() -> bool:
                assert process.returncode is None, (directory / "envoy.log").read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    return (await admin_client.get("/ready")).status_code == 200
                return False

            await eventually(is_ready)
            yield envoy
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
