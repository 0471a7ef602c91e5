"""HTTP/2 as a server of gRPC: connections, frames and flow control.

Written over `hpack` for what gateways send and no more, because frames are the hot path here: an exchange is some
sixteen of them, and a task and a system call for each is what a general server takes its time for. What came in one
piece is answered in one piece. Not here: priorities, pushes, compression of messages, and being a client.

Source: RFC 9113, RFC 7541.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Final, cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from controller.picker.ext_proc.stream import STREAM_WINDOW, UNIMPLEMENTED, CallOf, Stream

_MOST_BUFFERED: Final = 64 * 1024 * 1024
"""Bytes that a connection does not take, above which it is given up. Whole bodies may wait in front of a slow one."""
_CONNECTION_WINDOW: Final = 2**30
_GIVE_BACK: Final = 2**28
"""Of the connection: its streams are what is bounded."""
_DEFAULT_WINDOW: Final = 65_535
_LEAST_FRAME: Final = 16_384
_MAX_FRAME: Final = 128 * 1024
"""Bytes of a frame that are taken at most."""
_MOST_SENT: Final = 64 * 1024
"""Bytes of a frame that are sent at most."""
_MAX_FIELDS: Final = 64 * 1024
"""Bytes of a block of headers, coded. Those of gRPC are a few hundred."""
_MOST_STREAMS: Final = 100_000
"""Each takes some 2 KB; gateways send no more requests than their clients have."""
_KNOWN_BLOCKS: Final = 64
_LAST_STREAM: Final = 2**31 - 1

_DATA, _HEADERS, _PRIORITY_FRAME, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_NO_ERROR, _PROTOCOL_ERROR, _REFUSED = 0x0, 0x1, 0x7
_MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME_SIZE, _MAX_FIELDS_SIZE = 3, 4, 5, 6
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_frame_head: Final = struct.Struct(">HBBBL")


class Broken(Exception):
    """The other end breaks HTTP/2."""


class Connection(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, methods: Mapping[bytes, CallOf], connections: "set[Connection]") -> None:
        """`methods` by path. The connection is one of `connections` while it is open."""
        self._methods = methods
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._blocked: dict[Stream, None] = {}
        """Streams with something to send, in order."""
        self._newest = 0
        self._has_preface = False
        self._has_settings = False
        self._is_leaving = False
        self._buffer = bytearray()
        self._out: list[bytes | memoryview] = []
        self._is_flushing = False
        self._can_write = True
        self._window = _DEFAULT_WINDOW
        self.stream_window = _DEFAULT_WINDOW
        """That streams begin with."""
        self.max_frame = _LEAST_FRAME
        self._taken = 0
        self._decoder = Decoder(max_header_list_size=_MAX_FIELDS)
        self._paths: dict[bytes, bytes] = {}
        """By block of headers that changed no table, until one does."""
        self._block: tuple[int, int, bytearray] | None = None
        self._heard_at = self._loop.time()
        self._has_pinged = False

    @property
    def is_idle(self) -> bool:
        """Whether no stream is open."""
        return not self._streams

    def look(self, *, quiet: float, patience: float) -> None:
        """Ask whether the other end is there when it was quiet for some seconds, and give it up some seconds later."""
        silent = self._loop.time() - self._heard_at
        if silent > quiet + patience:
            self.abort()
        elif silent > quiet and not self._has_pinged:
            self._has_pinged = True
            self.frame(_PING, 0, 0, bytes(8))

    def go_away(self) -> None:
        """Ask for no more streams; those that are open go on, and the connection ends with the last."""
        self._is_leaving = True
        self.frame(_GOAWAY, 0, 0, struct.pack(">LL", _LAST_STREAM, _NO_ERROR))
        self._close_if_left()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    # What streams do.

    def send(self, stream: "Stream") -> None:
        """Send what the other end takes of a stream; the rest when it takes more."""
        pending = stream.pending
        while pending and self._can_write and self._window > 0 and stream.window > 0:
            piece = pending[0]
            size = min(len(piece), self._window, stream.window, self.max_frame)
            if size == len(piece):
                pending.popleft()
            else:
                pending[0], piece = piece[size:], piece[:size]
            self._window -= size
            stream.window -= size
            stream.unsent -= size
            self.frame(_DATA, 0, stream.id, piece)
        if pending:
            self._blocked[stream] = None
        else:
            self._blocked.pop(stream, None)

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        """Send a frame, at the end of this turn of the loop."""
        size = len(payload)
        self._out.append(_frame_head.pack(size >> 8, size & 255, kind, flags, stream_id))
        if size:
            self._out.append(payload)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def ended(self, stream: "Stream") -> None:
        """A stream was answered to its end."""
        self._blocked.pop(stream, None)
        if self._streams.pop(stream.id, None) is not None and not stream.is_half_closed:
            # What else it sends is of no interest.
            self.frame(_RST, 0, stream.id, struct.pack(">L", _NO_ERROR))
        self._close_if_left()

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # Not an isinstance: transports of uvloop are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        settings = {
            _MAX_STREAMS: _MOST_STREAMS,
            _INITIAL_WINDOW: STREAM_WINDOW,
            _MAX_FRAME_SIZE: _MAX_FRAME,
            _MAX_FIELDS_SIZE: _MAX_FIELDS,
        }
        self.frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HL", *item) for item in settings.items()))
        self.frame(_WINDOW, 0, 0, struct.pack(">L", _CONNECTION_WINDOW - _DEFAULT_WINDOW))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._connections.discard(self)
        self._blocked.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.gone()

    def pause_writing(self) -> None:
        """Called by the transport."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Called by the transport."""
        self._can_write = True
        self._unblock()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._heard_at = self._loop.time()
        self._has_pinged = False
        # Mostly there is nothing left of the last time, and what came is read where it is.
        buffer = self._buffer
        if buffer:
            buffer += data
        try:
            taken = self._take_frames(buffer or data)
        except (Broken, HPACKError, struct.error):
            self.frame(_GOAWAY, 0, 0, struct.pack(">LL", self._newest, _PROTOCOL_ERROR))
            self._flush()
            self.abort()
            return
        if buffer:
            del buffer[:taken]
        elif taken < len(data):
            buffer += data[taken:]

    # Frames.

    def _take_frames(self, buffer: bytes | bytearray) -> int:
        """How many bytes were whole frames. Raises Broken, HPACKError, struct.error."""
        start, have = 0, len(buffer)
        if not self._has_preface:
            if have < len(_PREFACE):
                if not _PREFACE.startswith(buffer):
                    raise Broken("no preface")
                return 0
            if not buffer.startswith(_PREFACE):
                raise Broken("no preface")
            self._has_preface = True
            start = len(_PREFACE)
        with memoryview(buffer) as view:
            while have - start >= 9:
                high, low, kind, flags, stream_id = _frame_head.unpack_from(view, start)
                size = high << 8 | low
                if size > _MAX_FRAME:
                    raise Broken("a frame is larger than was allowed")
                if have - start - 9 < size:
                    break
                payload = bytes(view[start + 9 : start + 9 + size])
                start += 9 + size
                if self._transport is None or self._transport.is_closing():
                    break
                self._took(kind, flags, stream_id & _LAST_STREAM, payload)
        return start

    def _took(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise Broken("a block of headers is interrupted")
        if kind == _DATA:
            self._took_data(flags, stream_id, payload)
        elif kind == _HEADERS:
            if flags & _PADDED:
                payload = _unpadded(payload)
            if flags & _PRIORITY:
                payload = payload[5:]
            self._took_block(stream_id, flags, bytearray(payload))
        elif kind == _CONTINUATION:
            if self._block is None or self._block[0] != stream_id:
                raise Broken("headers go on that did not begin")
            self._took_block(stream_id, self._block[1] & ~_END_HEADERS | flags, self._block[2] + payload)
        elif kind == _WINDOW:
            self._took_window(stream_id, struct.unpack(">L", payload)[0] & _LAST_STREAM)
        elif kind == _RST:
            if stream_id > self._newest:
                raise Broken("a stream is reset that did not begin")
            stream = self._streams.pop(stream_id, None)
            if stream is not None:
                self._blocked.pop(stream, None)
                stream.gone()
                self._close_if_left()
        elif kind == _SETTINGS:
            if not flags & _ACK:
                self._took_settings(payload)
        elif kind == _PING:
            if len(payload) != 8:
                raise Broken("a ping has eight bytes")
            if not flags & _ACK:
                self.frame(_PING, _ACK, 0, payload)
        elif kind == _PUSH:
            raise Broken("clients push nothing")

    def _took_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _GIVE_BACK:
            self.frame(_WINDOW, 0, 0, struct.pack(">L", self._taken))
            self._taken = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id > self._newest or not stream_id:
                raise Broken("data of a stream that did not begin")
            # It was ended here.
            return
        stream.room -= len(payload)
        if stream.room < 0 or stream.is_half_closed:
            raise Broken("a stream sends more than it may")
        data = _unpadded(payload) if flags & _PADDED else payload
        stream.took(data, padding=len(payload) - len(data), end=bool(flags & _END_STREAM))

    def _took_block(self, stream_id: int, flags: int, block: bytearray) -> None:
        if len(block) > _MAX_FIELDS:
            raise Broken("headers are too large")
        if not flags & _END_HEADERS:
            self._block = (stream_id, flags, block)
            return
        self._block = None
        path = self._path_of(bytes(block))
        stream = self._streams.get(stream_id)
        if stream is not None:
            # Trailers.
            if not flags & _END_STREAM:
                raise Broken("headers within a stream")
            stream.took(b"", end=True)
            return
        if stream_id <= self._newest:
            # Of a stream that was ended here.
            return
        if not stream_id & 1 or not self._has_settings:
            raise Broken("a stream has an odd number, and follows the settings")
        self._newest = stream_id
        if len(self._streams) >= _MOST_STREAMS:
            self.frame(_RST, 0, stream_id, struct.pack(">L", _REFUSED))
            return
        self._open(stream_id, path, end=bool(flags & _END_STREAM))

    def _open(self, stream_id: int, path: bytes, *, end: bool) -> None:
        stream = self._streams[stream_id] = Stream(self, stream_id)
        call_of = self._methods.get(path)
        if call_of is None:
            stream.is_half_closed = end
            stream.end(UNIMPLEMENTED, "there is no such method")
            return
        stream.serve(call_of(stream))
        if end:
            stream.took(b"", end=True)

    def _path_of(self, block: bytes) -> bytes:
        """Of a request. A block that only points into the table means the same until the table changes."""
        path = self._paths.get(block)
        if path is not None:
            return path
        entries = self._decoder.header_table.dynamic_entries
        first, count = entries[0] if entries else None, len(entries)
        fields = self._decoder.decode(block, raw=True)
        path = next((bytes(value) for name, value in fields if name == b":path"), b"")
        is_as_before = (entries[0] if entries else None) is first and len(entries) == count
        if not is_as_before or len(self._paths) >= _KNOWN_BLOCKS:
            self._paths.clear()
        else:
            self._paths[block] = path
        return path

    def _took_window(self, stream_id: int, size: int) -> None:
        if stream_id == 0:
            self._window += size
            if self._window > _LAST_STREAM:
                raise Broken("a window is too large")
            self._unblock()
            return
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.window += size
            if stream.window > _LAST_STREAM:
                raise Broken("a window is too large")
            if stream.pending:
                stream.go_on()

    def _took_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HL", payload):
            if name == _INITIAL_WINDOW:
                if value > _LAST_STREAM:
                    raise Broken("a window is too large")
                change, self.stream_window = value - self.stream_window, value
                for stream in tuple(self._streams.values()):
                    stream.window += change
            elif name == _MAX_FRAME_SIZE:
                self.max_frame = max(_LEAST_FRAME, min(value, _MOST_SENT))
        self._has_settings = True
        self.frame(_SETTINGS, _ACK, 0, b"")
        self._unblock()

    def _unblock(self) -> None:
        for stream in tuple(self._blocked):
            if not self._can_write or self._window <= 0:
                return
            stream.go_on()

    def _flush(self) -> None:
        self._is_flushing = False
        out, self._out = self._out, []
        transport = self._transport
        if not out or transport is None:
            return
        transport.write(b"".join(out))
        if transport.get_write_buffer_size() > _MOST_BUFFERED:
            # It asks, and takes no answers.
            transport.abort()

    def _close_if_left(self) -> None:
        if self._is_leaving and not self._streams and self._transport is not None:
            self._flush()
            self._transport.close()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Broken("a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]
