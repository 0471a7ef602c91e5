"""The dialer beside nginx: a child of this process from the first version on that needs it, and none before."""

import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from controller.agent.state import DIALER_SOCKET, State, replace_file
from controller.agent.supervise import Program, Supervisor
from controller.bundle import Bundle
from controller.dataplane.children import answering
from controller.dialed import DIALED_FILE, DialedBackends, decode_dialed, dialed_endpoints, encode_dialed
from controller.pools import POOLS_FILE, Pools, decode_pools, pools_of

log = logging.getLogger(__name__)

_OPTIONS: Final = ("--backends", DIALED_FILE, "--pools", POOLS_FILE, "--socket", DIALER_SOCKET)
COMMAND: Final = (sys.executable, "-m", "controller", "--log-format", "bare", "dialer", *_OPTIONS)
_OPENED: Final = 5.0
"""Seconds that the dialer has to open its sockets, its start included."""
_MISSES: Final = 5
"""Answers that it may owe in a row, of a second each. To kill it cuts every answer that passes through it."""


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
        if not wanted.backends:
            return
        pools = await asyncio.to_thread(self._pools)
        named = (endpoint for dialed in wanted.backends for endpoint in dialed_endpoints(dialed, pools))
        sockets = [self._state.root / endpoint.socket for endpoint in named]
        if not self._supervisor.is_started:
            self._supervisor.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _OPENED
        while not all(map(_is_open, sockets)):
            if loop.time() > deadline:
                log.warning("the dialer has not opened all sockets", extra={"sockets": len(sockets)})
                return
            await asyncio.sleep(0.01)
        if sockets:
            self._supervisor.vouch()

    def _pools(self) -> Pools:
        """As they were written last; none when they cannot be read."""
        try:
            return decode_pools(self._state.pools.read_bytes())
        except (OSError, ValueError):
            return pools_of(())

    async def stop(self) -> None:
        await self._supervisor.stop()


def _is_open(socket: Path) -> bool:
    return socket.is_socket()


def _program(state: State) -> Program:
    program = answering("dialer", COMMAND, state, socket=DIALER_SOCKET, misses=_MISSES)

    def clear() -> None:
        program.prepare()
        for path in (state.run / "dial").glob("*.sock"):
            path.unlink(missing_ok=True)

    return replace(program, prepare=clear)
