"""A request on a stream of HTTP/2, as its client has it, and who hears of the answer."""

import asyncio
from typing import Final, Protocol

from controller.extproc.http2 import frames
from controller.extproc.http2.frames import Fields, StreamEnded
from controller.extproc.http2.sending import Piece, Sending

_MOST_UNSENT: Final = 128 * 1024
"""Bytes of a stream that wait to be taken, above which whoever sends waits."""


class Listener(Protocol):
    """Hears of the answer on a stream."""

    def head(self, fields: Fields) -> None:
        """The answer's headers came."""
        ...

    def data(self, data: bytes) -> None:
        """Data came. What is done with is given back by `Stream.consumed`."""
        ...

    def ended(self, trailers: Fields) -> None:
        """The answer is whole."""
        ...

    def failed(self, problem: StreamEnded) -> None:
        """The stream was reset, or its connection is gone."""
        ...


class Carrier(Protocol):
    """The connection of a stream."""

    stream_window: int

    def pump(self, stream: "Stream") -> None:
        """Send what the other end takes of a stream; the rest when it takes more."""
        ...

    def frame(self, kind: int, flags: int, stream_id: int, payload: Piece = b"") -> None:
        """Send a frame, at the end of this turn of the loop."""
        ...

    def give_back(self, stream: "Stream") -> None:
        """Let the other end send as much more as was taken."""
        ...

    def reset(self, stream: "Stream", code: int) -> None:
        """Tell the other end that a stream is given up, and forget it."""
        ...

    def forget(self, stream: "Stream") -> None:
        """A stream has ended."""
        ...


class Stream(Sending):
    """A request and its answer."""

    __slots__ = ("_connection", "_failure", "_has_ended", "_has_head", "_listener", "_waiting", "has_sent_end")

    def __init__(self, connection: Carrier, stream_id: int, listener: Listener, *, window: int, room: int) -> None:
        super().__init__(stream_id, window=window, room=room)
        self.has_sent_end = False
        self._connection = connection
        self._listener = listener
        self._has_head = False
        self._has_ended = False
        self._failure: StreamEnded | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be taken that no more should be sent."""
        return self.unsent > _MOST_UNSENT

    def send(self, *pieces: Piece, end: bool = False) -> None:
        """Send as the other end takes it. Raises StreamEnded."""
        self.check()
        for piece in pieces:
            self.write(piece)
        if end:
            self.is_ending = self.has_sent_end = True
            if not self.unsent:
                self._connection.frame(frames.DATA, frames.END_STREAM, self.id)
                return
        self._connection.pump(self)

    async def drained(self) -> None:
        """Returns when it is not full. Raises StreamEnded."""
        while self.is_full:
            self.check()
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self.check()

    def reset(self, code: int = frames.CANCEL) -> None:
        """Give the stream up, unless it has ended both ways. Its listener hears nothing more."""
        if not (self._has_ended and self.has_sent_end):
            self._connection.reset(self, code)
        self._failure = self._failure or StreamEnded("the stream was given up")
        self._left()
        self.wake()

    def check(self) -> None:
        """Raises StreamEnded where nothing can be sent any more."""
        if self._failure is not None:
            raise self._failure

    def consumed(self, size: int) -> None:
        """So many bytes are done with."""
        self.unread += size
        if self.unread >= self._connection.stream_window // 4 and not self._has_ended:
            self._connection.give_back(self)

    # What the connection does.

    def wake(self) -> None:
        """It may be less full."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def took(self, data: bytes, *, padding: int, end: bool) -> None:
        self.unread += padding
        if self.room < 0:
            self._connection.reset(self, frames.FLOW_CONTROL_ERROR)
            self.fail("the other end sends more than it may")
            return
        if data:
            self._listener.data(data)
        if end:
            self._end([])

    def took_fields(self, fields: Fields, *, end: bool) -> None:
        if self._has_head:
            if end:
                self._end(fields)
            return
        status = next((value for name, value in fields if name == b":status"), b"")
        if not (len(status) == 3 and status.startswith(b"1")):
            self._has_head = True
            self._listener.head(fields)
        if end:
            self._end(fields)

    def fail(self, reason: str, *, is_untouched: bool = False) -> None:
        problem = self._failure = StreamEnded(reason, is_untouched=is_untouched)
        self._left().failed(problem)
        self.wake()

    def _end(self, trailers: Fields) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._connection.forget(self)
        if not self.has_sent_end:
            # Whoever has answered in full takes no more.
            self._failure = self._failure or StreamEnded("the other end has ended the stream")
            self.wake()
        self._left().ended(trailers)

    def _left(self) -> Listener:
        """The listener, which is not kept any longer: it keeps the stream, and no cycle is to be left behind."""
        listener, self._listener = self._listener, _NOBODY
        return listener


class _Nobody:
    """Hears nothing. See `Listener`."""

    def head(self, fields: Fields) -> None: ...

    def data(self, data: bytes) -> None: ...

    def ended(self, trailers: Fields) -> None: ...

    def failed(self, problem: StreamEnded) -> None: ...


_NOBODY: Final = _Nobody()
