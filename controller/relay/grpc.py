"""Calls of gRPC as a client: messages both ways, and how a call ended."""

import asyncio
from collections import deque
from typing import Final, Protocol

from controller.extproc.grpc import OK, UNKNOWN, MessageRefused, Messages, prefix
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import Fields, StreamEnded, encoded
from controller.extproc.http2.streams import Stream
from controller.turns import Turns

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes of one message; a picker that replaces a body in one piece sends large ones."""
_LARGE: Final = 512 * 1024
"""Bytes of a message, above which it needs a turn: what a picker may send ahead on a stream anyhow. It is kept until
it is whole, so it gets more than that only when there is room for all of it."""


class Hearer(Protocol):
    """Hears what the other end says."""

    def message(self, data: bytes) -> None:
        """A message came."""
        ...

    def ended(self, problem: StreamEnded | None) -> None:
        """The call is over; None: it ended well. Nothing is heard after that."""
        ...


class Call:
    """One call. See `Listener`."""

    def __init__(self, hearer: Hearer) -> None:
        self.stream: Stream
        self._hearer: Hearer | None = hearer
        self._messages = Messages(most=MAX_MESSAGE)
        self._turns: Turns | None = None
        self._unread = 0
        """Bytes that came and are not given back, of a message that waits for its turn."""

    def take_turns(self, turns: Turns) -> None:
        """Share the room for large messages with other calls."""
        self._turns = turns

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be taken that no more should be sent."""
        return self.stream.is_full

    def send(self, *pieces: bytes) -> None:
        """Send a message. Raises StreamEnded."""
        size = sum(map(len, pieces))
        self.stream.send(prefix(size), *pieces)

    async def drained(self) -> None:
        """Returns when it is not full. Raises StreamEnded."""
        await self.stream.drained()

    def done(self) -> None:
        """Say that no message follows. Raises StreamEnded."""
        self.stream.send(end=True)

    def cancel(self) -> None:
        """Give the call up, unless it has ended. Nothing more is heard."""
        self._hearer = None
        self._forget()
        self.stream.reset()

    def head(self, fields: Fields) -> None:
        """See `Listener`."""
        found = dict(fields)
        if found.get(b":status") != b"200":
            self._end(StreamEnded(f"the answer has the status {found.get(b':status', b'').decode(errors='replace')}"))
        elif not found.get(b"content-type", b"").startswith(b"application/grpc"):
            self._end(StreamEnded("the answer is no gRPC"))

    def data(self, data: bytes) -> None:
        """See `Listener`."""
        if self._hearer is None:
            return
        try:
            found = self._messages.add(data)
        except MessageRefused as problem:
            self._end(StreamEnded(str(problem)))
            return
        for message in found:
            if self._hearer is None:
                return
            self._hearer.message(message)
        if self._hearer is None:
            return
        if found and self._turns is not None:
            self._turns.end(self)
        self._unread += len(data)
        needed = self._messages.needed
        if self._turns is None or needed <= _LARGE or self._turns.ask(self, needed, then=self._give_back):
            self._give_back()

    def ended(self, trailers: Fields) -> None:
        """See `Listener`."""
        is_well = _status(trailers) == OK and not self._messages.held
        self._end(None if is_well else StreamEnded(f"the call ended with {_described(trailers)}"))

    def failed(self, problem: StreamEnded) -> None:
        """See `Listener`."""
        self._end(problem)

    def _give_back(self) -> None:
        """The picker may send on."""
        unread, self._unread = self._unread, 0
        self.stream.consumed(unread)

    def _forget(self) -> None:
        self._messages.clear()
        if self._turns is not None:
            self._turns.end(self)

    def _end(self, problem: StreamEnded | None) -> None:
        hearer, self._hearer = self._hearer, None
        self._forget()
        if hearer is not None:
            hearer.ended(problem)


class Answers:
    """Messages that wait to be read. See `Hearer`."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._has_ended = False
        self._problem: StreamEnded | None = None
        self._news = asyncio.Event()

    async def receive(self) -> bytes | None:
        """The next message; None when the call ended well. Raises StreamEnded when it did not."""
        while not self._messages:
            if self._problem is not None:
                raise self._problem
            if self._has_ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()

    def message(self, data: bytes) -> None:
        """See `Hearer`."""
        self._messages.append(data)
        self._news.set()

    def ended(self, problem: StreamEnded | None) -> None:
        """See `Hearer`."""
        self._has_ended, self._problem = True, problem
        self._news.set()


def call_head(method: str, *, authority: str, is_tls: bool) -> bytes:
    """The block of headers that a call begins with."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"https" if is_tls else b"http"),
        (b":path", method.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"infergate"),
    )
    return encoded(fields)


async def call(connection: Connection, head: bytes, hearer: Hearer) -> Call:
    """Open a call. Raises StreamEnded."""
    made = Call(hearer)
    made.stream = await connection.open(head, made)
    return made


def _status(trailers: Fields) -> int:
    """gRPC's status of a call that ended."""
    text = dict(trailers).get(b"grpc-status", b"")
    return int(text) if text.isdigit() and len(text) < 4 else UNKNOWN


def _described(trailers: Fields) -> str:
    message = dict(trailers).get(b"grpc-message", b"").decode(errors="replace")[:200]
    return f"status {_status(trailers)}" + (f": {message}" if message else "")
