"""A body on its way through the picker: what was sent there, until the picker says what becomes of it.

A picker answers each piece with what becomes of it, or streams a body of its own. As long as what comes back is what
was sent, the rest is known: when the picker fails, the body goes on unchanged.
"""

from collections.abc import Iterator, Sequence

from controller.relay.pieces import Budget, Pieces


class Reflection:
    """One body."""

    def __init__(self, budget: Budget) -> None:
        self._sent = Pieces(budget)
        self._offset = 0
        """Bytes of the first piece that came back in a stream."""
        self._is_streamed = False
        self.is_changed = False
        self.has_sent_end = False
        self.has_ended = False
        """Whether all of it came back."""

    @property
    def is_awaited(self) -> bool:
        """Whether the picker has something that it did not give back yet."""
        return self._sent.holds or (self.has_sent_end and not self.has_ended)

    def sent(self, piece: bytes, *, end: bool) -> None:
        """Keep a piece that the picker gets. The last one may be empty, and is answered like any other.

        Raises OSError when there is no room for it.
        """
        self.has_sent_end = end
        if not (self._is_streamed and self.is_changed):
            self._sent.add(piece)

    def answered(self, chunk: bytes | None) -> bytes:
        """What goes on for the next piece: `chunk`, or the piece itself without one."""
        original = self._sent.drop() if self._sent.holds else b""
        self.is_changed |= chunk is not None and chunk != original
        self.has_ended = self.has_sent_end and not self._sent.holds
        return original if chunk is None else chunk

    def streamed(self, chunk: bytes, *, end: bool) -> bytes:
        """What goes on for a piece of the picker's own stream."""
        self._is_streamed = True
        self.has_ended |= end
        if not self.is_changed and not (self._is_next(chunk) and (not end or self._is_all())):
            self.is_changed = True
            self._sent.clear()
        return chunk

    def all_sent(self) -> Sequence[bytes] | None:
        """What was sent, as long as nothing came back; None where it is not in memory."""
        return self._sent.in_memory()

    def rest(self) -> Iterator[bytes]:
        """What did not come back, of a body that is not changed."""
        offset, self._offset = self._offset, 0
        while self._sent.holds:
            yield self._sent.drop()[offset:]
            offset = 0

    def clear(self) -> None:
        self._sent.clear()

    def _is_next(self, chunk: bytes) -> bool:
        """Takes what came back from what was sent. False where it is something else."""
        at = 0
        while at < len(chunk):
            if not self._sent.holds:
                return False
            first = self._sent.first()
            size = min(len(first) - self._offset, len(chunk) - at)
            # Mostly pieces come back as they were, and are compared without a copy.
            if size == len(first):
                is_same = chunk.startswith(first, at)
            else:
                is_same = first.startswith(chunk[at : at + size] if at or size < len(chunk) else chunk, self._offset)
            if not is_same:
                return False
            at += size
            self._offset += size
            if self._offset == len(first):
                self._sent.drop()
                self._offset = 0
        return True

    def _is_all(self) -> bool:
        return self.has_sent_end and not any(self.rest())
