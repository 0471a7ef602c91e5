"""A connection of HTTP/2, as both of its ends have it: frames in and out, and flow control.

Frames are the hot path of an exchange with a picker. So what is sent in one turn of the loop leaves in one piece,
messages of one stream share frames, and data is handed on as it comes, before its frame is whole. Written over `hpack`
for what gateways and pickers send and no more. Not here: priorities, pushes, and compression of messages.

Source: RFC 9113, RFC 7541.
"""

import asyncio
import struct
from abc import abstractmethod
from typing import Final, Generic, TypeVar, cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from controller.extproc.http2 import frames
from controller.extproc.http2.blocks import Block, Blocks
from controller.extproc.http2.frames import Broken
from controller.extproc.http2.sending import Piece, Sending, joined

_CONNECTION_WINDOW: Final = 2**30
"""Large, so that a stream which nobody reads does not stop the others: streams are what is bounded."""
_GIVE_BACK: Final = 2**28
MAX_FRAME: Final = 128 * 1024
"""Bytes of a frame that are taken at most."""
_MOST_SENT: Final = 64 * 1024
"""Bytes of a frame that are sent at most."""

S = TypeVar("S", bound=Sending)


class Peer(asyncio.Protocol, Generic[S]):
    """One end of a connection."""

    def __init__(self, decoder: Decoder, *, stream_window: int, max_fields: int) -> None:
        """`stream_window` is what the other end may send on a stream; `max_fields` the bytes of a block of headers."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, S] = {}
        self._blocked: dict[S, None] = {}
        """Streams with something to send, in order."""
        self._blocks = Blocks(decoder, largest=max_fields)
        self._room = stream_window
        self._has_settings = False
        """Whether those of the other end came."""
        self._left = b""
        """The beginning of a frame."""
        self._partial: tuple[int, int, int] | None = None
        """Stream, flags and missing bytes of a frame of data that is not whole."""
        self._out: list[Piece] = []
        self._is_flushing = False
        self._can_write = True
        self._window = frames.DEFAULT_WINDOW
        self._stream_window = frames.DEFAULT_WINDOW
        """That streams begin with."""
        self._max_frame = frames.LEAST_FRAME
        self._taken = 0
        self.heard_at = self._loop.time()
        """When something came last."""

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    # What streams do.

    def pump(self, stream: S) -> None:
        """Send what the other end takes of a stream; the rest when it takes more."""
        while stream.unsent and self._can_write and self._window > 0 and stream.window > 0:
            size = min(stream.unsent, self._window, stream.window, self._max_frame)
            self._window -= size
            stream.window -= size
            ends = stream.is_ending and stream.unsent == size
            self._begin(frames.DATA, frames.END_STREAM if ends else 0, stream.id, size)
            stream.move(size, self._out)
        if stream.unsent:
            self._blocked[stream] = None
        else:
            self._blocked.pop(stream, None)

    def frame(self, kind: int, flags: int, stream_id: int, payload: Piece = b"") -> None:
        """Send a frame, at the end of this turn of the loop."""
        self._begin(kind, flags, stream_id, len(payload))
        if payload:
            self._out.append(payload)

    def give_back(self, stream: S) -> None:
        """Let the other end send as much more as was taken."""
        stream.room += stream.unread
        self.frame(frames.WINDOW, 0, stream.id, frames.number(stream.unread))
        stream.unread = 0

    # What an end adds.

    @abstractmethod
    def _took_data(self, stream: S, data: bytes, *, padding: int, end: bool) -> None: ...

    @abstractmethod
    def _took_fields(self, stream_id: int, fields: frames.Fields, *, end: bool) -> None: ...

    @abstractmethod
    def _took_reset(self, stream_id: int, code: int) -> None: ...

    @abstractmethod
    def _took_window(self, stream: S) -> None:
        """A stream may send more."""

    @abstractmethod
    def _took_setting(self, name: int, value: int) -> None: ...

    @abstractmethod
    def _is_known(self, stream_id: int) -> bool:
        """Whether there is or was such a stream."""

    @abstractmethod
    def _broke(self, problem: Exception) -> None:
        """End the connection, whose other end breaks HTTP/2."""

    def _took_settings(self) -> None:
        """All of a frame of settings were taken."""

    def _took_pong(self, payload: bytes) -> None: ...

    def _took_goaway(self, last: int, code: int) -> None: ...

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # Not an isinstance: transports of uvloop are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        """Called by the transport."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Called by the transport."""
        self._can_write = True
        self._unblock()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.heard_at = self._loop.time()
        if self._left:
            data, self._left = self._left + data, b""
        try:
            taken = self._take(data)
        except (Broken, HPACKError, struct.error) as problem:
            self._broke(problem)
            return
        if taken < len(data):
            self._left = data[taken:]

    # Frames.

    def _hello(self, settings: dict[int, int], *, preface: bytes = b"") -> None:
        """The first thing that is sent."""
        if preface:
            self._out.append(preface)
        self.frame(frames.SETTINGS, 0, 0, frames.settings(settings.items()))
        self.frame(frames.WINDOW, 0, 0, frames.number(_CONNECTION_WINDOW - frames.DEFAULT_WINDOW))

    def _take(self, data: bytes) -> int:
        """How many bytes were taken: whole frames, and data of the last. Raises Broken, HPACKError, struct.error."""
        at, have = 0, len(data)
        if self._partial is not None:
            stream_id, flags, missing = self._partial
            at = self._take_data(stream_id, flags, data, 0, missing)
        while have - at >= 9:
            high, low, kind, flags, stream_id = frames.head.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise Broken("a frame is larger than was allowed")
            if self._transport is None or self._transport.is_closing():
                return have
            if self._blocks.begun is not None and kind != frames.CONTINUATION:
                raise Broken("a block of headers is interrupted")
            if kind == frames.DATA and not flags & frames.PADDED:
                at = self._take_data(stream_id & frames.LARGEST, flags, data, at + 9, size)
                continue
            end = at + 9 + size
            if end > have:
                break
            self._took(kind, flags, stream_id & frames.LARGEST, data[at + 9 : end])
            at = end
        return at

    def _take_data(self, stream_id: int, flags: int, data: bytes, at: int, size: int) -> int:
        """Take what came of a frame of data. Returns where it ends."""
        end = min(at + size, len(data))
        missing = size - (end - at)
        self._partial = (stream_id, flags, missing) if missing else None
        self._data(stream_id, data[at:end], padding=0, end=bool(flags & frames.END_STREAM) and not missing)
        return end

    def _data(self, stream_id: int, data: bytes, *, padding: int, end: bool) -> None:
        if not self._has_settings:
            raise Broken("the first frame is not its settings")
        self._taken += len(data) + padding
        if self._taken >= _GIVE_BACK:
            self.frame(frames.WINDOW, 0, 0, frames.number(self._taken))
            self._taken = 0
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.room -= len(data) + padding
            self._took_data(stream, data, padding=padding, end=end)
        elif not self._is_known(stream_id):
            raise Broken("data of a stream that did not begin")

    def _took(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._settle(payload)
        elif not self._has_settings:
            raise Broken("the first frame is not its settings")
        elif kind == frames.HEADERS:
            if flags & frames.PADDED:
                payload = frames.unpadded(payload)
            if flags & frames.PRIORITY:
                payload = payload[5:]
            self._took_block(stream_id, self._blocks.begin(stream_id, flags, payload))
        elif kind == frames.WINDOW:
            self._widen(stream_id, struct.unpack(">L", payload)[0] & frames.LARGEST)
        elif kind == frames.DATA:
            data = frames.unpadded(payload)
            self._data(stream_id, data, padding=len(payload) - len(data), end=bool(flags & frames.END_STREAM))
        elif kind == frames.RST:
            if not self._is_known(stream_id):
                raise Broken("a stream is reset that did not begin")
            self._took_reset(stream_id, struct.unpack(">L", payload)[0])
        elif kind == frames.CONTINUATION:
            self._took_block(stream_id, self._blocks.go_on(stream_id, flags, payload))
        elif kind == frames.PING:
            if len(payload) != 8:
                raise Broken("a ping has eight bytes")
            if flags & frames.ACK:
                self._took_pong(payload)
            else:
                self.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.GOAWAY:
            last, code = struct.unpack_from(">LL", payload)
            self._took_goaway(last & frames.LARGEST, code)
        elif kind == frames.PUSH:
            raise Broken("a push was not asked for")

    def _took_block(self, stream_id: int, block: Block | None) -> None:
        if block is not None:
            self._took_fields(stream_id, block.fields, end=block.end)

    def _widen(self, stream_id: int, size: int) -> None:
        if stream_id == 0:
            self._window += size
            _check_window(self._window)
            self._unblock()
        elif (stream := self._streams.get(stream_id)) is not None:
            stream.window += size
            _check_window(stream.window)
            self._took_window(stream)

    def _settle(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HL", payload):
            if name == frames.INITIAL_WINDOW:
                _check_window(value)
                change, self._stream_window = value - self._stream_window, value
                for stream in self._streams.values():
                    stream.window += change
            elif name == frames.MAX_FRAME_SIZE:
                self._max_frame = max(frames.LEAST_FRAME, min(value, _MOST_SENT))
            else:
                self._took_setting(name, value)
        self._has_settings = True
        self.frame(frames.SETTINGS, frames.ACK, 0)
        self._took_settings()
        self._unblock()

    def _unblock(self) -> None:
        for stream in tuple(self._blocked):
            if not self._can_write or self._window <= 0:
                return
            self._took_window(stream)

    def _begin(self, kind: int, flags: int, stream_id: int, size: int) -> None:
        self._out.append(frames.head.pack(size >> 8, size & 255, kind, flags, stream_id))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if not self._out or self._transport is None:
            return
        out = joined(self._out)
        self._out.clear()
        if len(out) == 1:
            self._transport.write(out[0])
        else:
            self._transport.writelines(out)


def _check_window(size: int) -> None:
    if size > frames.LARGEST:
        raise Broken("a window is too large")
