"""Frames of HTTP/2: their numbers, and blocks of headers.

Source: RFC 9113, RFC 7541.
"""

import struct
from collections.abc import Iterable
from typing import Final, TypeAlias

Fields: TypeAlias = list[tuple[bytes, bytes]]
"""Names are lower-case, pseudo headers first; in order, with repetition."""

DATA, HEADERS, PRIORITY_FRAME, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
"""Kinds."""
ACK, END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags."""
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_FIELDS_SIZE = range(1, 7)
"""Settings."""
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, REFUSED, CANCEL = 0x0, 0x1, 0x3, 0x7, 0x8
"""Codes of errors."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW: Final = 65_535
LEAST_FRAME: Final = 16_384
"""Bytes of a frame that each end takes at least."""
LARGEST: Final = 2**31 - 1
"""Number of a stream, and size of a window."""
head: Final = struct.Struct(">HBBBL")
"""Of a frame: the size in two parts, kind, flags, number of the stream."""


class Broken(Exception):
    """The other end breaks HTTP/2."""


class StreamEnded(Exception):
    """A stream was reset, or its connection is gone."""

    def __init__(self, reason: str, *, is_untouched: bool = False) -> None:
        super().__init__(reason)
        self.is_untouched = is_untouched
        """Whether the other end says that it did nothing with the stream, so that it may be opened elsewhere."""


def number(value: int) -> bytes:
    """A size of a window, a code or a number of a stream."""
    return value.to_bytes(4, "big")


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """The payload of a frame of settings."""
    return b"".join(struct.pack(">HL", *item) for item in values)


def unpadded(payload: bytes) -> bytes:
    """A payload whose first byte counts the padding at its end. Raises Broken."""
    if not payload or payload[0] >= len(payload):
        raise Broken("a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]


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
