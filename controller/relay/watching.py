"""A connection to a picker, watched while it is there: whether the other end lives, and how well it is."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import SERVICE
from controller.pools import PickerTls
from controller.relay import grpc
from controller.relay.grpc import Answers, call_head

_HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
_MOST_PINGS: Final = 2
"""Until the picker sends headers or data again. Servers of gRPC close the connection at the fourth in 5 minutes."""
_PING_EVERY: Final = 310.0
"""Seconds after which another ping is taken all the same. Source: gRPC, A8-client-side-keepalive.md."""


@dataclass(frozen=True)
class Patience:
    """How long pickers are waited for, in seconds."""

    connect: float = 1.0
    answer: float = 90.0
    """For what a picker owes. Longer than any wait in a picker's queue: to wait is no failure."""
    silence: float = 2.0
    """Without a byte on a connection with requests under way, after which it is asked whether it lives."""
    pong: float = 3.0
    """For the answer to that: half of it to a question after its health, half of it to a ping."""
    check: float = 2.0
    """Between two questions after a picker's health."""


@dataclass(frozen=True)
class Place:
    """Where a picker is, and how it is spoken to."""

    address: str
    """`ip:port`."""
    authority: str
    tls: PickerTls | None


class Watched:
    """One connection. It ends when it is silent, or was told to go away and has no streams any more."""

    def __init__(
        self, connection: Connection, place: Place, patience: Patience, *, tell: Callable[[bool], None]
    ) -> None:
        """`tell` hears whether the picker serves, each time it says so."""
        self.connection = connection
        self.idle_since = asyncio.get_running_loop().time()
        """As far as somebody looked."""
        self._place = place
        self._patience = patience
        self._tell = tell
        self._task = asyncio.create_task(self._watch())

    @property
    def takes_streams(self) -> bool:
        return self.connection.failure is None

    def retire(self, reason: str) -> None:
        """End with the last request under way."""
        if self.connection.streams:
            self.connection.failure = self.connection.failure or reason
        else:
            self.close(reason)

    def close(self, reason: str) -> None:
        self._task.cancel()
        self.connection.close(reason)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        connection, patience = self.connection, self._patience
        checks_health, checked_at = True, 0.0
        while connection.failure is None or connection.streams:
            await asyncio.sleep(min(patience.silence, patience.check) / 2)
            is_quiet = connection.streams and loop.time() - connection.heard_at > patience.silence
            if is_quiet and not await self._lives(connection):
                connection.close("it does not answer")
            if not checks_health or connection.failure is not None or connection.is_full:
                continue
            if loop.time() - checked_at > patience.check:
                checked_at = loop.time()
                checks_health = await self._check(connection)
        connection.close(connection.failure or "")

    async def _lives(self, connection: Connection) -> bool:
        """Whether the other end is there. One that cannot be asked for a while is taken for one that is.

        A call is what every picker takes at any time, and refuses at once where it does not know it. Pings are counted,
        so they are for pickers that have no time for calls, or take no more streams.
        """
        loop = asyncio.get_running_loop()
        asked_at, patience = loop.time(), self._patience.pong / 2
        with suppress(StreamEnded, TimeoutError):
            async with asyncio.timeout(patience):
                await _health(connection, SERVICE, place=self._place)
        if connection.heard_at >= asked_at:
            return True
        if connection.pings >= _MOST_PINGS and loop.time() - connection.pinged_at < _PING_EVERY:
            return True
        with suppress(StreamEnded, TimeoutError):
            async with asyncio.timeout(patience):
                await connection.ping()
        return connection.heard_at >= asked_at

    async def _check(self, connection: Connection) -> bool:
        """Ask for the health of the service. False where a picker has no answer to that."""
        for service in (SERVICE, ""):
            try:
                async with asyncio.timeout(self._patience.connect):
                    status = await _health(connection, service, place=self._place)
            except (StreamEnded, TimeoutError):
                continue
            self._tell(status == _SERVING)
            return True
        self._tell(True)
        return False


async def _health(connection: Connection, service: str, *, place: Place) -> int:
    """Status of a service, as HealthCheckResponse numbers it. Raises StreamEnded where it has none."""
    head = call_head(_HEALTH_METHOD, authority=place.authority, is_tls=place.tls is not None)
    answers = Answers()
    call = await grpc.call(connection, head, answers)
    try:
        name = service.encode()
        call.send(b"\x0a" + bytes((len(name),)) + name if name else b"")
        call.done()
        answer = await answers.receive()
    finally:
        call.cancel()
    # One field, an enumeration; absent it is 0.
    return answer[1] if answer and answer[:1] == b"\x08" and len(answer) > 1 else 0
