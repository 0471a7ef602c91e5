"""HTTP/2 as a client: a connection with many streams, bounded by flow control both ways.

A connection that is told to go away lets its streams end.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from hpack import Decoder

from controller.extproc.http2 import frames
from controller.extproc.http2.frames import Fields, StreamEnded
from controller.extproc.http2.peer import Peer
from controller.extproc.http2.streams import Listener, Stream

STREAM_WINDOW: Final = 128 * 1024
"""Bytes that the other end may send on one stream before they are read, unless more is given."""
_MAX_FIELDS: Final = 256 * 1024
"""Bytes of a block of headers, coded."""
_MAX_FRAME: Final = 64 * 1024
"""Bytes of a frame: a message of a body and what is around it."""


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
