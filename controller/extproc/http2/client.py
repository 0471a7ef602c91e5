"""HTTP/2 as a client: a connection with many streams, bounded by flow control both ways.

A connection that is told to go away lets its streams end.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from hpack import Decoder

from controller.extproc.http2 import frames
from controller.extproc.http2.frames import Fields, StreamEnded, encoded
from controller.extproc.http2.peer import Peer, Piece, Sending

STREAM_WINDOW: Final = 128 * 1024
"""Bytes that the other end may send on one stream before they are read, unless more is given."""
_MOST_UNSENT: Final = 128 * 1024
"""Bytes of a stream that wait to be taken, above which whoever sends waits."""
_MAX_FIELDS: Final = 256 * 1024
"""Bytes of a block of headers, coded."""
_MAX_FRAME: Final = 64 * 1024
"""Bytes of a frame: a message of a body and what is around it."""


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


class Stream(Sending):
    """A request and its answer."""

    __slots__ = ("_connection", "_failure", "_has_ended", "_has_head", "_listener", "_waiting", "has_sent_end")

    def __init__(self, connection: "Connection", stream_id: int, listener: Listener, *, window: int, room: int) -> None:
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


class Connection(Peer[Stream]):
    """One connection. `failure` says why it can take no more streams; None while it can."""

    def __init__(self, *, stream_window: int = STREAM_WINDOW) -> None:
        """`stream_window` is what the other end may send on a stream before it is read."""
        decoder = Decoder()
        # Whoever answers has read in the settings that there is no table, whether or not it says so again.
        decoder.header_table_size = 0
        decoder.max_allowed_table_size = 0
        super().__init__(decoder, stream_window=stream_window, max_fields=_MAX_FIELDS)
        self.stream_window = stream_window
        self._next_id = 1
        self._max_streams = 2**31
        self._waiting: list[asyncio.Future[None]] = []
        """Those that wait for a stream."""
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done once the other end sent its settings. Raises StreamEnded when it never will."""
        self.failure: str | None = None
        self.on_room: Callable[[], None] = _nothing
        """Called when it may take another stream, and when it ended."""
        self.pings = 0
        """Sent since headers or data of a stream came last: what servers count against whoever pings."""
        self.pinged_at = self._loop.time()

    @property
    def is_full(self) -> bool:
        """Whether as many streams are open as the other end takes."""
        return len(self._streams) >= self._max_streams

    @property
    def room(self) -> int:
        """How many more streams the other end takes."""
        return max(0, self._max_streams - len(self._streams))

    # What callers do.

    async def open(self, block: bytes, listener: Listener, *, end: bool = False) -> Stream:
        """A stream that begins with a block of headers. Waits while as many are open as the other end takes.

        Raises StreamEnded.
        """
        while self.failure is None and self.is_full:
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            await waiting
        if self.failure is not None:
            raise StreamEnded(self.failure, is_untouched=True)
        stream = Stream(self, self._next_id, listener, window=self._stream_window, room=self.stream_window)
        self._streams[stream.id] = stream
        self._next_id += 2
        if self._next_id > frames.LARGEST:
            self.failure = "all numbers of streams are used"
        flags, kind = (frames.END_STREAM if end else 0), frames.HEADERS
        while len(block) > self._max_frame:
            self.frame(kind, flags, stream.id, block[: self._max_frame])
            block, flags, kind = block[self._max_frame :], 0, frames.CONTINUATION
        self.frame(kind, flags | frames.END_HEADERS, stream.id, block)
        stream.has_sent_end = end
        return stream

    async def ask(self, fields: Fields, *, end: bool = False) -> "Asked":
        """A stream whose answer is read bit by bit. Raises StreamEnded."""
        asked = Asked()
        asked.stream = await self.open(encoded(fields), asked, end=end)
        return asked

    async def ping(self) -> None:
        """Returns when the other end answers. Raises StreamEnded."""
        if self.failure is not None and self._transport is None:
            raise StreamEnded(self.failure)
        self.pings, self.pinged_at = self.pings + 1, self._loop.time()
        token = struct.pack(">Q", len(self._pings) + 1)
        answer = self._pings.setdefault(token, self._loop.create_future())
        self.frame(frames.PING, 0, 0, token)
        await asyncio.shield(answer)

    def close(self, reason: str) -> None:
        """End the connection and all of its streams."""
        self._end(reason)
        if self._transport is not None:
            self._flush()
            # What the other end does not take is not waited for.
            self._transport.abort()

    # What streams do.

    def reset(self, stream: Stream, code: int) -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._blocked.pop(stream, None)
            self.frame(frames.RST, 0, stream.id, frames.number(code))
            self._wake()

    def forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._blocked.pop(stream, None)
            self._wake()

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        settings = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW: self.stream_window,
            frames.MAX_FRAME_SIZE: _MAX_FRAME,
        }
        self._hello(settings, preface=frames.PREFACE)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._end(f"the connection ended: {error}" if error else "the connection was closed")

    # What the other end says.

    def _took_data(self, stream: Stream, data: bytes, *, padding: int, end: bool) -> None:
        self.pings = 0
        stream.took(data, padding=padding, end=end)

    def _took_fields(self, stream_id: int, fields: Fields, *, end: bool) -> None:
        self.pings = 0
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.took_fields(fields, end=end)

    def _took_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._blocked.pop(stream, None)
            stream.fail(f"the stream was reset with code {code}", is_untouched=code == frames.REFUSED)
            self._wake()

    def _took_window(self, stream: Stream) -> None:
        self.pump(stream)
        if not stream.is_full:
            stream.wake()

    def _took_setting(self, name: int, value: int) -> None:
        if name == frames.MAX_STREAMS:
            self._max_streams = max(1, value)

    def _took_settings(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        self._wake()

    def _took_pong(self, payload: bytes) -> None:
        answer = self._pings.pop(payload, None)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def _took_goaway(self, last: int, code: int) -> None:
        self.failure = self.failure or f"it goes away, code {code}"
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last]:
            stream = self._streams.pop(stream_id)
            self._blocked.pop(stream, None)
            stream.fail(self.failure, is_untouched=True)
        self._wake()

    def _is_known(self, stream_id: int) -> bool:
        return stream_id < self._next_id

    def _broke(self, problem: Exception) -> None:
        self.frame(frames.GOAWAY, 0, 0, struct.pack(">LL", 0, frames.PROTOCOL_ERROR))
        self.close(f"the other end breaks HTTP/2: {problem}")

    def _end(self, reason: str) -> None:
        self.failure = self.failure or reason
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.fail(reason)
        pings, self._pings = self._pings, {}
        for waiting in (*pings.values(), self.ready):
            if not waiting.done():
                waiting.set_exception(StreamEnded(reason))
                waiting.exception()  # nobody may be waiting
        self._wake()

    def _wake(self) -> None:
        """There may be room for another stream."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
        self.on_room()


def _nothing() -> None: ...


class Asked:
    """A request whose answer is read bit by bit. See `Listener`."""

    def __init__(self) -> None:
        self.stream: Stream
        self.trailers: Fields = []
        """Set when the answer has ended."""
        self._fields: Fields | None = None
        self._pieces: deque[bytes] = deque()
        self._has_ended = False
        self._failure: StreamEnded | None = None
        self._news = asyncio.Event()

    async def send(self, data: Piece, *, end: bool = False) -> None:
        """Waits until the other end takes it. Raises StreamEnded."""
        self.stream.send(data, end=end)
        await self.stream.drained()

    async def answer(self) -> Fields:
        """Headers of the answer. Raises StreamEnded."""
        while self._fields is None:
            await self._wait()
        return self._fields

    async def read(self) -> bytes:
        """What came of the body, in one piece; empty at its end. Raises StreamEnded."""
        while not self._pieces:
            if self._has_ended:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self.stream.consumed(len(data))
        return data

    def reset(self) -> None:
        """Give it up, unless it has ended both ways."""
        self.stream.reset()
        self.failed(StreamEnded("the stream was given up"))

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._news.clear()
        await self._news.wait()

    def head(self, fields: Fields) -> None:
        """See `Listener`."""
        self._fields = fields
        self._news.set()

    def data(self, data: bytes) -> None:
        """See `Listener`."""
        self._pieces.append(data)
        self._news.set()

    def ended(self, trailers: Fields) -> None:
        """See `Listener`."""
        self.trailers, self._has_ended = trailers, True
        self._news.set()

    def failed(self, problem: StreamEnded) -> None:
        """See `Listener`."""
        self._failure = self._failure or problem
        self._news.set()
