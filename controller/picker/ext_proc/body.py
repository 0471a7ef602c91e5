"""The body of a request in hand, within the memory that the bodies of all exchanges may take."""

from typing import Final

from controller.picker.answers import Outcome, Refusal
from controller.picker.ext_proc.desk import Desk

_TOO_LARGE: Final = Refusal(Outcome.TOO_LARGE, 413, "the body is larger than the endpoint picker can hold")
_NO_ROOM: Final = Refusal(Outcome.NO_ROOM, 429, "the bodies of other requests take all the memory", 1)


class Body:
    """That of one exchange. Call `release` when it is over."""

    __slots__ = ("_desk", "_held", "_pieces", "size")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes so far."""
        self._held = 0
        """Of these, what is counted in the memory of all bodies."""

    def hold(self, chunk: bytes) -> Refusal | None:
        """Keep a piece; the refusal if there is no room."""
        desk = self._desk
        self.size += len(chunk)
        if self.size > desk.body_memory:
            return _TOO_LARGE
        if desk.held + len(chunk) > desk.body_memory:
            return _NO_ROOM
        desk.held += len(chunk)
        self._held += len(chunk)
        if chunk:
            self._pieces.append(chunk)
        return None

    def overflow(self, size: int) -> Refusal:
        """Why so many bytes more find no memory."""
        return _TOO_LARGE if self.size + size > self._desk.body_memory else _NO_ROOM

    def whole(self) -> bytes:
        """All of it that is kept."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def forget(self) -> None:
        """Keep no piece. Their memory is counted until `release`: messages that are not sent yet hold them."""
        self._pieces = []

    def release(self) -> None:
        """Give the memory back."""
        self._desk.held -= self._held
        self._held = 0
        self._pieces = []
