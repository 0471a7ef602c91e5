"""One call of gRPC on a stream of HTTP/2, as its server has it: messages, windows, and a status at the end.

Source: gRPC over HTTP2, PROTOCOL-HTTP2.md; RFC 9113, RFC 7541.
"""

from collections.abc import Callable
from typing import Final, Protocol

from controller.extproc.grpc import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, MessageRefused, Messages, prefix
from controller.extproc.http2 import frames
from controller.extproc.http2.sending import Piece, Sending

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes that a gateway may send on a stream before it hears more: prompts of 220 KB come without a pause."""
MOST_UNSENT: Final = 1024 * 1024
"""Bytes of a stream that wait to be taken, above which it may send no more."""
MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes of one message: a gateway that buffers bodies sends each in one."""


class Call(Protocol):
    """What serves one stream."""

    def message(self, data: bytes) -> None:
        """A message came."""
        ...

    def holds(self, size: int) -> bool:
        """So many bytes of the next message came; whether there is memory for them."""
        ...

    def half_closed(self) -> None:
        """No message follows."""
        ...

    def drained(self) -> None:
        """All that was sent has left."""
        ...

    def gone(self) -> None:
        """The stream was reset, or its connection is no more."""
        ...


CallOf = Callable[["Stream"], Call]


class Carrier(Protocol):
    """The connection of a stream."""

    def pump(self, stream: "Stream") -> None:
        """Send what the other end takes of a stream; the rest when it takes more."""
        ...

    def frame(self, kind: int, flags: int, stream_id: int, payload: Piece = b"") -> None:
        """Send a frame, at the end of this turn of the loop."""
        ...

    def give_back(self, stream: "Stream") -> None:
        """Let the other end send as much more as was taken."""
        ...

    def ended(self, stream: "Stream") -> None:
        """A stream was answered to its end."""
        ...


class Stream(Sending):
    """One call of gRPC."""

    __slots__ = ("_call", "_connection", "_end", "_has_begun", "_is_over", "_messages", "is_half_closed")

    def __init__(self, connection: Carrier, stream_id: int, *, window: int) -> None:
        super().__init__(stream_id, window=window, room=STREAM_WINDOW)
        self.is_half_closed = False
        """Whether the other end sends no more."""
        self._connection = connection
        self._call: Call | None = None
        self._messages = Messages(most=MAX_MESSAGE)
        self._has_begun = False
        self._end: bytes | None = None
        """Trailers that follow what is pending."""
        self._is_over = False

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has left."""
        return not self.pending

    def serve(self, call: Call) -> None:
        """Hand messages to this call from here on."""
        self._call = call

    def send(self, *pieces: bytes) -> None:
        """Send a message, as the other end takes it."""
        if self._is_over:
            return
        if not self._has_begun:
            self._has_begun = True
            self._connection.frame(frames.HEADERS, frames.END_HEADERS, self.id, _HEAD)
        self.write(prefix(sum(map(len, pieces))))
        for piece in pieces:
            self.write(piece)
        self._connection.pump(self)

    def end(self, status: int, message: str = "") -> None:
        """Send the status behind all messages; the call hears of nothing more."""
        if self._is_over or self._end is not None:
            return
        self._call = None
        self._end = _trailers(status, message, begun=self._has_begun)
        if not self.pending:
            self._finish()

    def go_on(self) -> None:
        """The other end takes more."""
        self._connection.pump(self)
        if not self.pending:
            if self._end is not None:
                self._finish()
            elif self._call is not None:
                self._call.drained()
        self._give_back()

    def took(self, data: bytes, *, padding: int = 0, end: bool) -> None:
        """Data came."""
        self.unread += len(data) + padding
        if end:
            self.is_half_closed = True
        if self._call is not None and data:
            self._read(data)
        if end and self._call is not None:
            if self._messages.held:
                self._give_up(INVALID_ARGUMENT, "the last message is cut off")
                return
            self._call.half_closed()
        self._give_back()

    def gone(self) -> None:
        """It was reset, or the connection is lost."""
        self._is_over = True
        self.pending.clear()
        self.unsent = 0
        self._messages.clear()
        call, self._call = self._call, None
        if call is not None:
            call.gone()

    def _read(self, data: bytes) -> None:
        messages = self._messages
        had = messages.held
        try:
            found = messages.add(data)
        except MessageRefused as problem:
            self._give_up(problem.status, str(problem))
            return
        for message in found:
            assert self._call is not None  # checked before, and after each message
            if had:
                # From here on it is the call's to count.
                had = 0
                self._call.holds(0)
            self._call.message(message)
            if self._call is None:
                messages.clear()
                return
        if messages.held and self._call is not None and not self._call.holds(messages.held):
            self._give_up(RESOURCE_EXHAUSTED, "messages in hand take all the memory")

    def _give_up(self, status: int, message: str) -> None:
        """End a call that does not end itself."""
        call = self._call
        self.end(status, message)
        self._messages.clear()
        if call is not None:
            call.gone()

    def _finish(self) -> None:
        assert self._end is not None  # the callers have looked
        self._is_over = True
        self._connection.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, self.id, self._end)
        self._connection.ended(self)

    def _give_back(self) -> None:
        if (
            self.unread >= STREAM_WINDOW // 2
            and self.unsent <= MOST_UNSENT
            and not (self.is_half_closed or self._is_over)
        ):
            self._connection.give_back(self)


def _literal(name: bytes, value: bytes) -> bytes:
    """A header as it is, without a table; both are shorter than 127 bytes. Source: RFC 7541, section 6.2.2."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


_HEAD: Final = b"\x88" + _literal(b"content-type", b"application/grpc")
"""`:status: 200` is number 8 of the static table."""


def _trailers(status: int, message: str, *, begun: bool) -> bytes:
    """The end of a call, with the head of one that has none."""
    told = b"" if begun else _HEAD
    told += _literal(b"grpc-status", str(status).encode())
    # Percent-encoding is for what is no printable ASCII.
    text = "".join(char if " " <= char <= "~" and char != "%" else "?" for char in message)[:120]
    return told + (_literal(b"grpc-message", text.encode()) if text else b"")
