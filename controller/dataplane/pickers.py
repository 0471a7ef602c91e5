"""The picker beside nginx: a child of this process, or the other container of a pod."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from controller.agent import client
from controller.agent.state import PICKER_SOCKET, State
from controller.agent.supervise import Supervisor
from controller.dataplane.children import answering
from controller.errors import PickerNotRunning

log = logging.getLogger(__name__)

_POOLS_READ: Final = 2.0
"""Seconds that the picker has to read pools; it looks every 0.1 s."""
_CRASHES: Final = 5
"""Ends in a row after which a child is not waited for any longer."""


class Picker(Protocol):
    """A picker that works in a state directory."""

    @property
    def pid(self) -> int | None:
        """None while it does not run, or is nobody's child here."""
        ...

    async def wait_until_ready(self) -> None:
        """Returns at once after the first time. Raises PickerNotRunning when it does not become ready in time."""
        ...

    async def stop(self) -> None:
        """End it if it was started here."""
        ...


class ChildPicker:
    """A picker that is kept running by this process, from the first question on."""

    def __init__(self, command: tuple[str, ...], state: State, *, timeout: float) -> None:
        """`timeout` is the time in seconds that it has to become ready."""
        self._supervisor = Supervisor(answering("picker", command, state, socket=PICKER_SOCKET))
        self._state = state
        self._timeout = timeout

    @property
    def pid(self) -> int | None:
        return self._supervisor.pid

    async def wait_until_ready(self) -> None:
        """See `Picker`. One that does not become ready is stopped."""
        if self._supervisor.is_started:
            return
        self._supervisor.start()
        if await _is_ready(self._state, self._timeout, goes_on=lambda: self._supervisor.ends < _CRASHES):
            self._supervisor.vouch()
            return
        await self._supervisor.stop()
        said = f"; it said last: {self._supervisor.last_line}" if self._supervisor.last_line else ""
        raise PickerNotRunning(f"the picker did not become ready in {self._timeout:g} s{said}")

    async def stop(self) -> None:
        await self._supervisor.stop()


class NeighbourPicker:
    """A picker that somebody else keeps running and that shares the state directory."""

    def __init__(self, state: State, *, timeout: float) -> None:
        """`timeout` is the time in seconds that it has to become ready."""
        self._state = state
        self._timeout = timeout
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        return None

    async def wait_until_ready(self) -> None:
        """See `Picker`."""
        if not self._was_ready and not await _is_ready(self._state, self._timeout, goes_on=lambda: True):
            raise PickerNotRunning(f"the picker did not become ready in {self._timeout:g} s")
        self._was_ready = True

    async def stop(self) -> None:
        """It is not ours to end."""


async def wait_for_pools(state: State, etag: str) -> None:
    """Wait until the picker has read the pools, so that no request of a new version asks for one in vain.

    A picker that does not get there in time is no reason to hold up the version.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _POOLS_READ
    while loop.time() < deadline:
        answer = await client.ask(state, "/readyz", socket=PICKER_SOCKET, timeout=1.0)
        if answer.body.split() == [b"ok", etag.encode()]:
            return
        await asyncio.sleep(0.01)
    log.warning("the picker has not read the newest pools", extra={"etag": etag})


async def _is_ready(state: State, timeout: float, *, goes_on: Callable[[], bool]) -> bool:
    """Waits up to `timeout` seconds, as long as that makes sense."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while loop.time() < deadline and goes_on():
        if (await client.ask(state, "/readyz", socket=PICKER_SOCKET, timeout=1.0)).status == 200:
            return True
        await asyncio.sleep(0.02)
    return False
