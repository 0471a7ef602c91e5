"""What came on a connection and was not read yet, of which its socket gives no more than is bounded."""

import asyncio
from collections import deque
from typing import Final

_HIGH: Final = 256 * 1024
"""Bytes that wait to be read, at which no more are taken from the socket."""


class Inlet:
    """That of one connection."""

    __slots__ = ("_is_paused", "_unread", "pieces", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        """None before there is a connection, and after it is lost."""
        self.pieces: deque[bytes] = deque()
        self._unread = 0
        self._is_paused = False

    def add(self, piece: bytes) -> None:
        """More came."""
        self.pieces.append(piece)
        self._unread += len(piece)
        if self._unread > _HIGH and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def take(self) -> bytes:
        """All of it, which may be nothing yet. More may come."""
        data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.clear()
        self.resume()
        return data

    def clear(self) -> None:
        """Nobody reads it."""
        self.pieces.clear()
        self._unread = 0

    def resume(self) -> None:
        """More may come."""
        if self._is_paused and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
