"""Messages of gRPC within the data of a stream: each with its length in front.

Source: gRPC over HTTP2, PROTOCOL-HTTP2.md.
"""

import struct
from typing import Final

OK, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 2, 3, 5, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14
"""Statuses."""
PREFIX: Final = 5
"""Bytes in front of a message."""
_prefix: Final = struct.Struct(">BL")


class MessageRefused(Exception):
    """A message is compressed, or larger than what is taken."""

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason)
        self.status = status


def prefix(size: int) -> bytes:
    """What stands in front of a message of so many bytes."""
    return _prefix.pack(0, size)


class Messages:
    """Makes messages of data that comes in pieces."""

    __slots__ = ("_have", "_most", "_need", "_parts")

    def __init__(self, *, most: int) -> None:
        """`most` are the bytes of one message."""
        self._most = most
        self._parts: list[bytes] = []
        self._have = 0
        self._need = PREFIX
        """Bytes at which there is more to know."""

    @property
    def held(self) -> int:
        """Bytes of a message that is not whole."""
        return self._have

    @property
    def needed(self) -> int:
        """Bytes that it will have, as far as is known."""
        return self._need

    def add(self, data: bytes) -> list[bytes]:
        """Messages that are whole with it. Raises MessageRefused."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._parts)
            self.clear()
        found: list[bytes] = []
        at, have, need = 0, len(data), PREFIX
        while have - at >= PREFIX:
            compressed, size = _prefix.unpack_from(data, at)
            if compressed:
                raise MessageRefused("a message is compressed", status=UNIMPLEMENTED)
            if size > self._most:
                raise MessageRefused(f"a message has {size:,} bytes", status=RESOURCE_EXHAUSTED)
            need = PREFIX + size
            if have - at < need:
                break
            found.append(data[at + PREFIX : at + need])
            at, need = at + need, PREFIX
        if at < have:
            self._parts.append(data[at:])
            self._have, self._need = have - at, need
        return found

    def clear(self) -> None:
        """Forget what is not whole."""
        self._parts = []
        self._have, self._need = 0, PREFIX
