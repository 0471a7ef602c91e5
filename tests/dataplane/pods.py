"""A pod of a data plane as processes: the agent with its nginx, and a picker beside it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.ports import free_port

from .control_plane import ControlPlane

_FAKE_PICKER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("fake_picker.py")))


@dataclass
class Pod:
    plane: ControlPlane
    directory: Path
    token: str = "good"
    gateway: str = "shop/edge"
    probes: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Command that runs the agent."""

    def __post_init__(self) -> None:
        (self.state / "run").mkdir(parents=True, exist_ok=True)
        self.token_file.write_text(self.token)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def command(self) -> Sequence[str]:
        options = {
            "server": self.plane.url,
            "gateway": self.gateway,
            "token-file": str(self.token_file),
            "ca-file": str(self.plane.ca_file),
            "state": str(self.state),
            "probes": f"127.0.0.1:{self.probes}",
            "drain-delay": "0.1",
            "grace": "10",
        }
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [*self.before, sys.executable, "-m", "controller", "agent", *given, *self.options]

    @asynccontextmanager
    async def picker(self) -> AsyncIterator[None]:
        (self.state / "run/picker.sock").unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(*_FAKE_PICKER, cwd=self.state)
        try:
            yield
        finally:
            process.kill()
            await process.wait()

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[asyncio.subprocess.Process]:
        with (self.directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*self.command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(15):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def probe(self, path: str) -> httpx.Response | None:
        """None while nobody listens."""
        async with httpx.AsyncClient(trust_env=False) as http:
            try:
                return await http.get(f"http://127.0.0.1:{self.probes}{path}")
            except httpx.TransportError:
                return None

    async def says(self, text: str, *, within: float = 10.0) -> None:
        """Wait until the agent's log has a text."""
        async with asyncio.timeout(within):
            while text not in self.log:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)


async def answers(port: int, text: str, *, within: float = 10.0) -> None:
    """Wait until nginx answers a text."""
    async with asyncio.timeout(within), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/", headers={"connection": "close"})).text == text:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)
