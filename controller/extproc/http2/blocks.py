"""Blocks of headers as they come on a connection: in one frame or in several, and in HPACK with a table.

Source: RFC 9113, section 4.3; RFC 7541.
"""

from typing import Final, NamedTuple

from hpack import Decoder

from controller.extproc.http2 import frames
from controller.extproc.http2.frames import Broken, Fields

_MOST_KNOWN: Final = 64
_KNOWN: Final = 512
"""Bytes of a block that is known. Those of gRPC have less."""
_TABLE_SIZE: Final = 0x20
"""Beginning of a block that changes the size of the table. Source: RFC 7541, section 6.3."""


class Block(NamedTuple):
    """Headers or trailers of a stream."""

    fields: Fields
    end: bool
    """Whether the stream ends with them."""


class Blocks:
    """Those that one end of a connection receives."""

    def __init__(self, decoder: Decoder, *, largest: int) -> None:
        """`largest`: bytes of one block."""
        self._decoder = decoder
        self._largest = largest
        self._known: dict[bytes, Fields] = {}
        """Headers by block, of blocks that changed no table, until one does."""
        self.begun: tuple[int, int, bytearray] | None = None
        """Stream, flags and beginning of a block that is not whole: nothing else may come before its end."""

    def begin(self, stream_id: int, flags: int, payload: bytes) -> Block | None:
        """The block if it is whole; `payload` without padding and priority. Raises Broken, HPACKError."""
        if flags & frames.END_HEADERS:
            return self._whole(flags, payload)
        self._keep(stream_id, flags, bytearray(payload))
        return None

    def go_on(self, stream_id: int, flags: int, payload: bytes) -> Block | None:
        """The block once it is whole. Raises Broken, HPACKError."""
        if self.begun is None or self.begun[0] != stream_id:
            raise Broken("headers go on that did not begin")
        _, first, block = self.begun
        block += payload
        if flags & frames.END_HEADERS:
            self.begun = None
            return self._whole(first | flags, bytes(block))
        self._keep(stream_id, first | flags, block)
        return None

    def _keep(self, stream_id: int, flags: int, block: bytearray) -> None:
        self._check(block)
        self.begun = (stream_id, flags, block)

    def _whole(self, flags: int, block: bytes) -> Block:
        self._check(block)
        end = bool(flags & frames.END_STREAM)
        if not (block or end):
            # Only trailers may be none.
            raise Broken("a block of headers is empty")
        return Block(self._decoded(block), end)

    def _check(self, block: bytes | bytearray) -> None:
        if len(block) > self._largest:
            raise Broken("headers are too large")

    def _decoded(self, block: bytes) -> Fields:
        """A block that changes no table means the same until one changes it."""
        known = self._known.get(block)
        if known is not None:
            return known
        entries = self._decoder.header_table.dynamic_entries
        first, count = entries[0] if entries else None, len(entries)
        fields = [(bytes(item[0]), bytes(item[1])) for item in self._decoder.decode(block, raw=True)]
        is_as_before = (entries[0] if entries else None) is first and len(entries) == count
        if not is_as_before or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        if is_as_before and 0 < len(block) <= _KNOWN and block[0] & 0xE0 != _TABLE_SIZE:
            self._known[block] = fields
        return fields
