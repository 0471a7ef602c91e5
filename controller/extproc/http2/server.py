"""HTTP/2 as a server of gRPC: a connection of a gateway, whose streams are calls."""

import struct
from collections.abc import Mapping
from typing import Final

from hpack import Decoder

from controller.extproc.grpc import UNIMPLEMENTED
from controller.extproc.http2 import frames
from controller.extproc.http2.frames import Broken
from controller.extproc.http2.peer import MAX_FRAME, Peer
from controller.extproc.http2.served import STREAM_WINDOW, CallOf, Stream

_MOST_BUFFERED: Final = 64 * 1024 * 1024
"""Bytes that a connection does not take, above which it is given up. Whole bodies may wait in front of a slow one."""
_MAX_FIELDS: Final = 64 * 1024
"""Bytes of a block of headers, coded. Those of gRPC are a few hundred."""
_MOST_STREAMS: Final = 100_000
"""Each takes some 2 KB; gateways send no more requests than their clients have."""


class Connection(Peer[Stream]):
    """One connection of a gateway."""

    def __init__(self, methods: Mapping[bytes, CallOf], connections: "set[Connection]") -> None:
        """`methods` by path. The connection is one of `connections` while it is open."""
        super().__init__(Decoder(max_header_list_size=_MAX_FIELDS), stream_window=STREAM_WINDOW, max_fields=_MAX_FIELDS)
        self._methods = methods
        self._connections = connections
        self._newest = 0
        self._has_preface = False
        self._is_leaving = False
        self._has_pinged = False

    @property
    def is_idle(self) -> bool:
        """Whether no stream is open."""
        return not self._streams

    def look(self, *, quiet: float, patience: float) -> None:
        """Ask whether the other end is there when it was quiet for some seconds, and give it up some seconds later."""
        silent = self._loop.time() - self.heard_at
        if silent <= quiet:
            self._has_pinged = False
        elif silent > quiet + patience:
            self.abort()
        elif not self._has_pinged:
            self._has_pinged = True
            self.frame(frames.PING, 0, 0, bytes(8))

    def go_away(self) -> None:
        """Ask for no more streams; those that are open go on, and the connection ends with the last."""
        self._is_leaving = True
        self.frame(frames.GOAWAY, 0, 0, struct.pack(">LL", frames.LARGEST, frames.NO_ERROR))
        self._close_if_left()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def ended(self, stream: Stream) -> None:
        """A stream was answered to its end."""
        self._blocked.pop(stream, None)
        if self._streams.pop(stream.id, None) is not None and not stream.is_half_closed:
            # What else it sends is of no interest.
            self.frame(frames.RST, 0, stream.id, frames.number(frames.NO_ERROR))
        self._close_if_left()

    # What the transport does.

    def connection_made(self, transport: object) -> None:
        """Called by the loop."""
        super().connection_made(transport)  # type: ignore[arg-type]  # a transport of uvloop
        self._connections.add(self)
        settings = {
            frames.MAX_STREAMS: _MOST_STREAMS,
            frames.INITIAL_WINDOW: STREAM_WINDOW,
            frames.MAX_FRAME_SIZE: MAX_FRAME,
            frames.MAX_FIELDS_SIZE: _MAX_FIELDS,
        }
        self._hello(settings)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._connections.discard(self)
        self._blocked.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.gone()

    def _take(self, data: bytes) -> int:
        if self._has_preface:
            return super()._take(data)
        size = len(frames.PREFACE)
        if not data.startswith(frames.PREFACE[: len(data)]):
            raise Broken("no preface")
        if len(data) < size:
            return 0
        self._has_preface = True
        return size + super()._take(data[size:])

    # What the other end says.

    def _took_data(self, stream: Stream, data: bytes, *, padding: int, end: bool) -> None:
        if stream.room < 0 or stream.is_half_closed:
            raise Broken("a stream sends more than it may")
        stream.took(data, padding=padding, end=end)

    def _took_fields(self, stream_id: int, fields: frames.Fields, *, end: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            # Trailers.
            if not end:
                raise Broken("headers within a stream")
            stream.took(b"", end=True)
            return
        if self._is_known(stream_id):
            # Of a stream that was ended here.
            return
        if not stream_id & 1:
            raise Broken("a stream has an odd number")
        self._newest = stream_id
        if len(self._streams) >= _MOST_STREAMS:
            self.frame(frames.RST, 0, stream_id, frames.number(frames.REFUSED))
            return
        self._open(stream_id, next((value for name, value in fields if name == b":path"), b""), end=end)

    def _open(self, stream_id: int, path: bytes, *, end: bool) -> None:
        stream = self._streams[stream_id] = Stream(self, stream_id, window=self._stream_window)
        call_of = self._methods.get(path)
        if call_of is None:
            stream.is_half_closed = end
            stream.end(UNIMPLEMENTED, "there is no such method")
            return
        stream.serve(call_of(stream))
        if end:
            stream.took(b"", end=True)

    def _took_reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._blocked.pop(stream, None)
            stream.gone()
            self._close_if_left()

    def _took_window(self, stream: Stream) -> None:
        if stream.pending:
            stream.go_on()

    def _took_setting(self, name: int, value: int) -> None:
        pass

    def _is_known(self, stream_id: int) -> bool:
        return 0 < stream_id <= self._newest

    def _broke(self, problem: Exception) -> None:
        self.frame(frames.GOAWAY, 0, 0, struct.pack(">LL", self._newest, frames.PROTOCOL_ERROR))
        self._flush()
        self.abort()

    def _flush(self) -> None:
        super()._flush()
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > _MOST_BUFFERED:
            # It asks, and takes no answers.
            transport.abort()

    def _close_if_left(self) -> None:
        if self._is_leaving and not self._streams and self._transport is not None:
            self._flush()
            self._transport.close()
