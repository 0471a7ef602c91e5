"""The dialer beside nginx: a child of this process from the first version on that needs it, and none before."""

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Final

from controller.agent.state import State, replace_file
from controller.agent.supervise import Program, Supervisor
from controller.bundle import DIALED_FILE, Bundle, DialedBackends, decode_dialed, encode_dialed
from controller.dataplane.children import level_of

log = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "controller", "--log-format", "bare", "dialer", "--backends", DIALED_FILE)
_OPENED: Final = 5.0
"""Seconds that the dialer has to open its sockets, its start included."""


class Dialer:
    """Keeps the dialer running as soon as there is something to dial."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._supervisor = Supervisor(_program(state))

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._supervisor.pid

    async def prepare(self, bundle: Bundle) -> None:
        """Have all sockets open that a bundle needs, before nginx looks for them.

        A dialer that does not get there in time is no reason to hold up the version. Raises StateUnusable when its file
        cannot be written.
        """
        content = next((file.content for file in bundle.files if file.path == DIALED_FILE), b"")
        path = self._state.root / DIALED_FILE
        if content or path.exists():
            await asyncio.to_thread(replace_file, path, content or encode_dialed(DialedBackends(())))
        await self.resume()

    async def resume(self) -> None:
        """Dial what was dialed when the state directory was last used."""
        try:
            wanted = decode_dialed((self._state.root / DIALED_FILE).read_bytes())
        except (OSError, ValueError):
            return
        sockets = [self._state.root / endpoint.socket for dialed in wanted.backends for endpoint in dialed.endpoints]
        if not sockets:
            return
        if not self._supervisor.is_started:
            self._supervisor.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _OPENED
        while not all(map(_is_open, sockets)):
            if loop.time() > deadline:
                log.warning("the dialer has not opened all sockets", extra={"sockets": len(sockets)})
                return
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await self._supervisor.stop()


def _is_open(socket: Path) -> bool:
    return socket.is_socket()


def _program(state: State) -> Program:
    def clear() -> None:
        for path in (state.run / "dial").glob("*.sock"):
            path.unlink(missing_ok=True)

    return Program(
        name="dialer",
        command=COMMAND,
        directory=state.root,
        stops=((signal.SIGTERM, 2.0),),
        leash=signal.SIGKILL,
        orphans=signal.SIGKILL,
        prepare=clear,
        level=level_of,
    )
