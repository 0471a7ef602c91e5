"""What leads to one picker: a connection, and others beside it where those have as many streams as the picker takes."""

import asyncio
import logging
from collections import deque
from typing import Final

from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import StreamEnded
from controller.extproc.messages import METHOD
from controller.relay import calling, grpc
from controller.relay.errors import Fault, PickerFailed
from controller.relay.grpc import Call, Hearer, call_head
from controller.relay.watching import Patience, Place, Watched

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries to connect; in between, requests fail at once, or wait where there is a connection."""
MOST_CONNECTIONS: Final = 32
"""To one picker. Servers of gRPC may take no more than 100 streams each, and 2,000 long answers are to pass."""
SPARE: Final = 5.0
"""Seconds without streams after which a connection beside another one ends."""
_TRIES: Final = 2
"""Connections that end between a wait for them and the request."""


class Link:
    """The connections to one place, opened when they are asked for. Both phases of a request are on the same one."""

    def __init__(self, place: Place, patience: Patience, *, most: int = MOST_CONNECTIONS) -> None:
        """`most` is how many connections there are at once."""
        self._place = place
        self._most = most
        self._patience = patience
        self._opening: asyncio.Task[None] | None = None
        self._connections: list[Watched] = []
        """Those that take no new streams stay until they have none."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        """For a stream, in order."""
        self._pause = 0.0
        self._not_before = 0.0
        self._reason = ""
        self._head = call_head(METHOD, authority=place.authority, is_tls=place.tls is not None)
        self.is_serving = True
        """False where the picker says that it is not; it is asked all the same where no other is."""

    @property
    def is_failing(self) -> bool:
        return not self.is_connected and self._is_pausing

    @property
    def is_connected(self) -> bool:
        return any(one.takes_streams for one in self._connections)

    @property
    def is_full(self) -> bool:
        """Whether each connection has as many streams as the picker takes."""
        return self.is_connected and self._free() is None

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def streams(self) -> int:
        return sum(one.connection.streams for one in self._connections)

    def state(self) -> dict[str, object]:
        return {
            "address": self._place.address,
            "tls": "none" if self._place.tls is None else "verified" if self._place.tls.ca else "unverified",
            "connected": self.is_connected,
            "connections": self.connections,
            "streams": self.streams,
            "serving": self.is_serving,
            "failure": "" if self.is_connected else self._reason,
        }

    async def call(self, hearer: Hearer) -> Call:
        """Open a call. Waits while the picker takes no more of them. Raises PickerFailed."""
        for _ in range(_TRIES):
            connection = await self._with_room()
            try:
                return await grpc.call(connection, self._head, hearer)
            except StreamEnded as problem:
                self._reason = str(problem)
        raise PickerFailed(f"{self._place.address}: {self._reason}", fault=Fault.UNREACHABLE)

    def retire(self) -> None:
        """End with the last request under way."""
        for one in list(self._connections):
            one.retire("no pool names this picker any more")

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for one in list(self._connections):
            one.close("the relay needs it no more")

    def sweep(self, now: float) -> None:
        """Close connections that were not needed for a while, but for the first. `now` is the time of the loop."""
        taking = [one for one in self._connections if one.takes_streams]
        for one in taking[1:]:
            if one.connection.streams:
                one.idle_since = now
            elif now - one.idle_since >= SPARE:
                one.close("it is needed no more")

    @property
    def _is_pausing(self) -> bool:
        return asyncio.get_running_loop().time() < self._not_before

    def _free(self) -> Connection | None:
        for one in self._connections:
            if one.takes_streams and not one.connection.is_full:
                return one.connection
        return None

    async def _with_room(self) -> Connection:
        """A connection that takes another stream. Raises PickerFailed."""
        while (free := self._free()) is None:
            is_connected = self.is_connected
            if self._is_pausing and not is_connected:
                raise PickerFailed(f"{self._place.address}: {self._reason}", fault=Fault.UNREACHABLE)
            taking = sum(one.takes_streams for one in self._connections)
            if self._is_pausing or taking >= self._most:
                await self._room()
                continue
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            try:
                await asyncio.shield(self._opening)
            except PickerFailed:
                if not self.is_connected:
                    raise
        return free

    async def _room(self) -> None:
        """Returns when there may be room, or another connection may be tried."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiting)
        timer = loop.call_at(self._not_before, self._wake_all) if self._is_pausing else None
        try:
            await waiting
        except asyncio.CancelledError:
            self._have_news()  # it may have been this one's turn
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _open(self) -> None:
        """Raises PickerFailed."""
        place, loop = self._place, asyncio.get_running_loop()
        try:
            connection = await calling.connected(place, self._patience)
        except PickerFailed as problem:
            self._reason = str(problem)
            self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._not_before = loop.time() + self._pause
            log.warning("picker cannot be reached", extra={"picker": place.address, "reason": self._reason})
            raise PickerFailed(f"{place.address}: {self._reason}", fault=Fault.UNREACHABLE) from problem
        if not self.is_connected:
            self.is_serving, self._reason = True, ""
        self._pause = self._not_before = 0.0
        self._connections.append(Watched(connection, place, self._patience, tell=self._hear))
        connection.on_room = self._have_news
        log.info("connected to a picker", extra={"picker": place.address, "tls": place.tls is not None})

    def _hear(self, is_serving: bool) -> None:
        if is_serving != self.is_serving:
            log.info("picker changed its health", extra={"picker": self._place.address, "serving": is_serving})
        self.is_serving = is_serving

    def _have_news(self) -> None:
        """A connection takes another stream, or ended. Lets as many go on as there is room for."""
        for one in [one for one in self._connections if not (one.takes_streams or one.connection.streams)]:
            self._connections.remove(one)
            self._reason = one.connection.failure or self._reason
        if not self.is_connected:
            self._wake_all()
            return
        room = sum(one.connection.room for one in self._connections if one.takes_streams)
        while self._waiting and room > 0:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                room -= 1

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.done():
                each.set_result(None)
