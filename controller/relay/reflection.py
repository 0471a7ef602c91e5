"""A body on its way through the picker: what was sent there, until the picker says what becomes of it.

A picker answers each piece with what becomes of it, or streams a body of its own. As long as what comes back is what
was sent, the rest is known: when the picker fails, the body goes on unchanged.

What was sent can be had again without a copy: what came back unchanged is kept by whoever took it, and the rest here.
"""

from collections.abc import Iterator, Sequence

from controller.relay.pieces import Budget, Pieces


class Reflection:
    """One body."""

    def __init__(self, budget: Budget, *, keeps: bool = False) -> None:
        """`keeps`: whether what was sent is to be had again after the picker has changed it."""
        self._budget = budget
        self._keeps = keeps
        self._sent = Pieces(budget)
        self._offset = 0
        """Bytes of the first piece that came back in a stream."""
        self._replaced: Pieces | None = None
        """What was sent before the pieces in `_sent` and did not go on as it was."""
        self._replaced_offset = 0
        """Bytes of its first piece that did."""
        self.same = 0
        """Bytes at the beginning of what goes on that are those of what was sent."""
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
        # Nothing of a changed stream is waited for, but what was sent stays in its order.
        if self._is_streamed and self.is_changed and not self._sent.holds:
            self._replace(piece)
        else:
            self._sent.add(piece)

    def missed(self, piece: bytes) -> None:
        """A piece of which the picker is told, and which goes nowhere. Raises OSError likewise."""
        if self._keeps:
            self.sent(piece, end=self.has_sent_end)

    def answered(self, chunk: bytes | None) -> bytes:
        """What goes on for the next piece: `chunk`, or the piece itself without one."""
        original = self._sent.drop() if self._sent.holds else b""
        offset, self._offset = self._offset, 0
        # A piece of which a part came back in a stream goes on a second time.
        self.is_changed |= (chunk is not None and chunk != original) or offset > 0
        self._go_on(original[offset:])
        self.has_ended = self.has_sent_end and not self._sent.holds
        return original if chunk is None else chunk

    def streamed(self, chunk: bytes, *, end: bool) -> bytes:
        """What goes on for a piece of the picker's own stream."""
        self._is_streamed = True
        self.has_ended |= end
        if self.is_changed:
            # Where pieces were answered before; nothing of a changed body is waited for.
            for piece in self._left():
                self._replace(piece)
        elif not (self._is_next(chunk) and (not end or self._is_all())):
            self.is_changed = True
            if self._keeps:
                self._replaced, self._sent = self._sent, Pieces(self._budget)
                self._replaced_offset, self._offset = self._offset, 0
            self._sent.clear()
        return chunk

    def all_sent(self) -> Sequence[bytes] | None:
        """What was sent, as long as nothing came back; None where it is not in memory."""
        return self._sent.in_memory()

    def rest(self) -> Iterator[bytes]:
        """What did not come back, of a body that is not changed."""
        for piece in self._left():
            self._go_on(piece)
            yield piece

    def others(self) -> Iterator[bytes]:
        """What was sent beyond the bytes that went on as they were. They are gone from here with that."""
        offset = self._replaced_offset
        while self._replaced is not None and self._replaced.holds:
            yield self._replaced.drop()[offset:]
            offset = 0
        yield from self._left()

    def forget(self) -> None:
        """What the picker has changed is not wanted any more."""
        self._keeps = False
        if self._replaced is not None:
            self._replaced.clear()

    def clear(self) -> None:
        self._sent.clear()
        self.forget()

    def _left(self) -> Iterator[bytes]:
        offset, self._offset = self._offset, 0
        while self._sent.holds:
            yield self._sent.drop()[offset:]
            offset = 0

    def _go_on(self, piece: bytes) -> None:
        """A piece of what was sent is answered, and goes on as it is where nothing was changed."""
        if self.is_changed:
            self._replace(piece)
        else:
            self.same += len(piece)

    def _replace(self, piece: bytes) -> None:
        """Raises OSError when there is no room for it."""
        if not self._keeps:
            return
        if self._replaced is None:
            self._replaced = Pieces(self._budget)
        self._replaced.add(piece)

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
            self.same += size
            self._offset += size
            if self._offset == len(first):
                self._sent.drop()
                self._offset = 0
        return True

    def _is_all(self) -> bool:
        if not self.has_sent_end or self.same < self._sent.size:
            return False
        self._sent.clear()  # an empty last piece
        return True
