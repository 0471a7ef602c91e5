"""What waits to be sent: of a stream, until its other end takes it, and of a connection, until the end of a turn."""

from collections import deque
from collections.abc import Iterable
from typing import Final

_COPIED: Final = 16 * 1024
"""Bytes that cost less to copy into one piece than to be handed to the kernel one by one."""

Piece = bytes | memoryview


class Sending:
    """What a stream has still to send, and what its other end takes."""

    __slots__ = ("id", "is_ending", "pending", "room", "unread", "unsent", "window")

    def __init__(self, stream_id: int, *, window: int, room: int) -> None:
        self.id = stream_id
        self.window = window
        """Bytes that the other end takes."""
        self.room = room
        """Bytes that it may send."""
        self.unread = 0
        """Bytes that were taken and not given back yet."""
        self.pending: deque[Piece] = deque()
        self.unsent = 0
        """Bytes of these."""
        self.is_ending = False
        """Whether the stream ends with them."""

    def write(self, piece: Piece) -> None:
        """Add to what is pending. An empty piece is none."""
        if piece:
            self.pending.append(piece)
            self.unsent += len(piece)

    def move(self, size: int, out: list[Piece]) -> None:
        """Take so many bytes of what is pending, which has as many, to the end of `out`."""
        self.unsent -= size
        pending = self.pending
        while size:
            piece = pending.popleft()
            if len(piece) > size:
                view = memoryview(piece)
                piece = view[:size]
                pending.appendleft(view[size:])
            out.append(piece)
            size -= len(piece)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same bytes in fewer pieces: small ones that follow each other are one."""
    out: list[Piece] = []
    small: list[Piece] = []
    for piece in pieces:
        if len(piece) < _COPIED:
            small.append(piece)
            continue
        if small:
            out.append(b"".join(small))
            small = []
        out.append(piece)
    if small:
        out.append(b"".join(small))
    return out
