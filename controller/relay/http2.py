"""HTTP/2 as a client: one connection with many streams, bounded by flow control both ways.

Written over `hpack` for what the relay needs and no more, because frames are its hot path: an exchange with a picker is
some twelve of them. Not here: priorities, pushes, and being a server. A connection that is told to go away lets its
streams end.

Source: RFC 9113, RFC 7541.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeAlias, cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from controller.relay.errors import StreamEnded

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Names are lower-case, pseudo headers first; in order, with repetition."""

STREAM_WINDOW: Final = 128 * 1024
"""Bytes that the other end may send on one stream before they are read: what a stream holds in memory."""
_CONNECTION_WINDOW: Final = 2**30
"""Large, so that a stream which nobody reads does not stop the others. Given back as data comes."""
_GIVE_BACK: Final = 2**28
_DEFAULT_WINDOW: Final = 65_535
_MAX_FRAME: Final = 16_384
_MAX_FIELDS: Final = 256 * 1024
"""Bytes of a block of headers, coded."""
_LAST_STREAM: Final = 2**31 - 1

_DATA, _HEADERS, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
CANCEL: Final = 0x8
_PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _REFUSED = 0x1, 0x3, 0x7
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME_SIZE = 1, 2, 3, 4, 5
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_head: Final = struct.Struct(">HBBBL")


class Connection(asyncio.Protocol):
    """One connection. `failure` says why it can take no more streams; None while it can."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._out: list[bytes] = []
        self._is_flushing = False
        self._can_write = True
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._max_frame = _MAX_FRAME
        self._max_streams = 2**31
        self._blocked: deque[asyncio.Future[None]] = deque()
        """Those that wait for room on the connection, or for a stream."""
        self._taken = 0
        self._decoder = Decoder()
        # Whoever answers has read in the settings that there is no table, whether or not it says so again.
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._buffer = bytearray()
        self._block: tuple[int, int, bytearray] | None = None
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self.ready: asyncio.Future[None] = loop.create_future()
        """Done once the other end sent its settings. Raises StreamEnded when it never will."""
        self.failure: str | None = None
        self.heard_at = loop.time()
        """When something came last."""

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    # What callers do.

    async def open(self, fields: Iterable[tuple[bytes, bytes]], *, end: bool = False) -> "Stream":
        """A stream that begins with these headers. Waits while as many are open as the other end takes.

        Raises StreamEnded.
        """
        while self.failure is None and len(self._streams) >= self._max_streams:
            await self._wait_for_room()
        if self.failure is not None:
            raise StreamEnded(self.failure, is_untouched=True)
        stream = Stream(self, self._next_id, self._stream_window)
        self._streams[stream.id] = stream
        self._next_id += 2
        if self._next_id > _LAST_STREAM:
            self.failure = "all numbers of streams are used"
        block = encoded(fields)
        flags, kind = (_END_STREAM if end else 0), _HEADERS
        while len(block) > self._max_frame:
            self._frame(kind, flags, stream.id, block[: self._max_frame])
            block, flags, kind = block[self._max_frame :], 0, _CONTINUATION
        self._frame(kind, flags | _END_HEADERS, stream.id, block)
        stream.has_sent_end = end
        return stream

    async def ping(self) -> None:
        """Returns when the other end answers. Raises StreamEnded."""
        if self.failure is not None and self._transport is None:
            raise StreamEnded(self.failure)
        token = struct.pack(">Q", len(self._pings) + 1)
        answer = self._pings.setdefault(token, self._loop.create_future())
        self._frame(_PING, 0, 0, token)
        await asyncio.shield(answer)

    def close(self, reason: str) -> None:
        """End the connection and all of its streams."""
        self._end(reason)
        if self._transport is not None:
            self._flush()
            # What the other end does not take is not waited for.
            self._transport.abort()

    # What streams do.

    async def send(self, stream: "Stream", data: bytes | memoryview, *, end: bool) -> None:
        """Send data as the other end takes it. Raises StreamEnded."""
        view = memoryview(data)
        while True:
            stream.check()
            if not self._can_write or (len(view) and min(self._window, stream.window) <= 0):
                await (self._wait_for_room() if not self._can_write or self._window <= 0 else stream.wait_for_window())
                continue
            size = min(len(view), self._window, stream.window, self._max_frame)
            piece, view = view[:size], view[size:]
            self._window -= size
            stream.window -= size
            is_last = not len(view)
            self._frame(_DATA, _END_STREAM if end and is_last else 0, stream.id, piece)
            if is_last:
                stream.has_sent_end |= end
                return

    def give_back(self, stream: "Stream", size: int) -> None:
        self._frame(_WINDOW, 0, stream.id, struct.pack(">L", size))

    def reset(self, stream: "Stream", code: int) -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._frame(_RST, 0, stream.id, struct.pack(">L", code))
            self._wake()

    def forget(self, stream: "Stream") -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._wake()

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = {_HEADER_TABLE_SIZE: 0, _ENABLE_PUSH: 0, _INITIAL_WINDOW: STREAM_WINDOW}
        self._out.append(_PREFACE)
        self._frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HL", *item) for item in settings.items()))
        self._frame(_WINDOW, 0, 0, struct.pack(">L", _CONNECTION_WINDOW - _DEFAULT_WINDOW))
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._end(f"the connection ended: {error}" if error else "the connection was closed")

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        buffer = self._buffer
        buffer += data
        start, have = 0, len(buffer)
        try:
            while have - start >= 9:
                high, low, kind, flags, stream_id = _head.unpack_from(buffer, start)
                size = high << 8 | low
                if size > _MAX_FRAME:
                    raise _Broken("a frame is larger than was allowed")
                if have - start - 9 < size:
                    break
                payload = bytes(buffer[start + 9 : start + 9 + size])
                start += 9 + size
                self._took(kind, flags, stream_id & _LAST_STREAM, payload)
        except (_Broken, HPACKError, struct.error) as problem:
            self._frame(_GOAWAY, 0, 0, struct.pack(">LL", 0, _PROTOCOL_ERROR))
            self.close(f"the other end breaks HTTP/2: {problem}")
            return
        del buffer[:start]

    # Frames.

    def _took(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise _Broken("a block of headers is interrupted")
        if not self.ready.done() and kind != _SETTINGS:
            raise _Broken("the first frame is not its settings")
        if kind == _DATA:
            self._took_data(flags, stream_id, payload)
        elif kind == _HEADERS:
            if flags & _PADDED:
                payload = _unpadded(payload)
            if flags & _PRIORITY:
                payload = payload[5:]
            self._block = (stream_id, flags, bytearray(payload))
            if flags & _END_HEADERS:
                self._took_headers()
        elif kind == _CONTINUATION:
            if self._block is None or self._block[0] != stream_id:
                raise _Broken("headers go on that did not begin")
            self._block[2].extend(payload)
            if len(self._block[2]) > _MAX_FIELDS:
                raise _Broken("headers are too large")
            if flags & _END_HEADERS:
                self._took_headers()
        elif kind == _WINDOW:
            self._took_window(stream_id, struct.unpack(">L", payload)[0] & _LAST_STREAM)
        elif kind == _RST:
            code = struct.unpack(">L", payload)[0]
            stream = self._streams.pop(stream_id, None)
            if stream is not None:
                stream.fail(f"the stream was reset with code {code}", is_untouched=code == _REFUSED)
                self._wake()
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._took_settings(payload)
        elif kind == _PING:
            if not flags & _ACK:
                self._frame(_PING, _ACK, 0, payload)
            elif (answer := self._pings.pop(payload, None)) is not None and not answer.done():
                answer.set_result(None)
        elif kind == _GOAWAY:
            last, code = struct.unpack_from(">LL", payload)
            self._went_away(last & _LAST_STREAM, code)
        elif kind == _PUSH:
            raise _Broken("a push was not asked for")

    def _took_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _GIVE_BACK:
            self._frame(_WINDOW, 0, 0, struct.pack(">L", self._taken))
            self._taken = 0
        stream = self._streams.get(stream_id)
        if stream is None:  # it was reset here
            return
        data = _unpadded(payload) if flags & _PADDED else payload
        stream.took(data, padding=len(payload) - len(data), end=bool(flags & _END_STREAM))

    def _took_headers(self) -> None:
        assert self._block is not None
        stream_id, flags, block = self._block
        self._block = None
        if len(block) > _MAX_FIELDS:
            raise _Broken("headers are too large")
        fields = [(bytes(item[0]), bytes(item[1])) for item in self._decoder.decode(bytes(block), raw=True)]
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.took_headers(fields, end=bool(flags & _END_STREAM))

    def _took_window(self, stream_id: int, size: int) -> None:
        if stream_id == 0:
            self._window += size
            self._wake()
        elif (stream := self._streams.get(stream_id)) is not None:
            stream.window += size
            stream.wake()

    def _took_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HL", payload):
            if name == _INITIAL_WINDOW:
                change, self._stream_window = value - self._stream_window, value
                for stream in self._streams.values():
                    stream.window += change
                    stream.wake()
            elif name == _MAX_FRAME_SIZE:
                self._max_frame = min(value, 65_536)
            elif name == _MAX_STREAMS:
                self._max_streams = max(1, value)
        self._frame(_SETTINGS, _ACK, 0, b"")
        if not self.ready.done():
            self.ready.set_result(None)
        self._wake()

    def _went_away(self, last: int, code: int) -> None:
        self.failure = self.failure or f"it goes away, code {code}"
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last]:
            self._streams.pop(stream_id).fail(self.failure, is_untouched=True)
        self._wake()

    def _end(self, reason: str) -> None:
        self.failure = self.failure or reason
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(reason)
        pings, self._pings = self._pings, {}
        for waiting in (*pings.values(), self.ready):
            if not waiting.done():
                waiting.set_exception(StreamEnded(reason))
                waiting.exception()  # nobody may be waiting
        self._wake()

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        self._out.append(_head.pack(size >> 8, size & 255, kind, flags, stream_id))
        if size:
            self._out.append(bytes(payload))
        if not self._is_flushing:
            # What is sent in one turn of the loop leaves in one piece.
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    async def _wait_for_room(self) -> None:
        waiting = self._loop.create_future()
        self._blocked.append(waiting)
        await waiting

    def _wake(self) -> None:
        blocked, self._blocked = self._blocked, deque()
        for waiting in blocked:
            if not waiting.done():
                waiting.set_result(None)


class Stream:
    """A request and its answer."""

    def __init__(self, connection: Connection, stream_id: int, window: int) -> None:
        self.id = stream_id
        self.window = window
        self.has_sent_end = False
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._room = STREAM_WINDOW
        self._head: Fields | None = None
        self.trailers: Fields = []
        """Set when the answer has ended."""
        self._has_ended = False
        self._failure: StreamEnded | None = None
        self._news = asyncio.Event()
        self._waiting: asyncio.Future[None] | None = None

    async def send(self, data: bytes | memoryview, *, end: bool = False) -> None:
        """Raises StreamEnded. Waits until the other end takes it."""
        await self._connection.send(self, data, end=end)

    async def head(self) -> Fields:
        """Headers of the answer. Raises StreamEnded."""
        while self._head is None:
            self.check()
            self._news.clear()
            await self._news.wait()
        return self._head

    async def read(self) -> bytes:
        """What came of the body, in one piece; empty at its end. Raises StreamEnded."""
        while not self._pieces:
            if self._has_ended:
                return b""
            self.check()
            self._news.clear()
            await self._news.wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._unread += len(data)
        if self._unread >= STREAM_WINDOW // 4 and not self._has_ended:
            self._give_back()
        return data

    def reset(self, code: int = CANCEL) -> None:
        """Give the stream up, unless it has ended both ways."""
        if not (self._has_ended and self.has_sent_end):
            self._connection.reset(self, code)
        self.fail("the stream was given up")

    def check(self) -> None:
        """Raises StreamEnded where nothing can be sent any more."""
        if self._failure is not None:
            raise self._failure

    async def wait_for_window(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def took(self, data: bytes, *, padding: int, end: bool) -> None:
        self._room -= len(data) + padding
        self._unread += padding
        if self._room < 0:
            self._connection.reset(self, _FLOW_CONTROL_ERROR)
            self.fail("the other end sends more than it may")
            return
        if data:
            self._pieces.append(data)
        self._ended(end)

    def took_headers(self, fields: Fields, *, end: bool) -> None:
        status = next((value for name, value in fields if name == b":status"), b"")
        if self._head is not None:
            self.trailers = fields
        elif not (len(status) == 3 and status.startswith(b"1")):
            self._head = fields
            if end:
                self.trailers = fields
        self._ended(end)

    def fail(self, reason: str, *, is_untouched: bool = False) -> None:
        if self._failure is None:
            self._failure = StreamEnded(reason, is_untouched=is_untouched)
        self._news.set()
        self.wake()

    def _ended(self, end: bool) -> None:
        if end:
            self._has_ended = True
            self._connection.forget(self)
            if not self.has_sent_end:
                # Whoever has answered in full takes no more.
                self._failure = self._failure or StreamEnded("the other end has ended the stream")
                self.wake()
        self._news.set()

    def _give_back(self) -> None:
        self._room += self._unread
        self._connection.give_back(self, self._unread)
        self._unread = 0


class _Broken(Exception):
    """The other end breaks the protocol."""


def encoded(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as HPACK, without a table: each name and value as it is. Source: RFC 7541, section 6.2.2."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    length = bytearray((127,))
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + value


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _Broken("a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]
