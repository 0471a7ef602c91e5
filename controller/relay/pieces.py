"""Pieces of bodies that are kept until they are needed no more: in memory up to a limit, beyond it in files.

Files have no name, so that they end with the process. What is written to one goes to the page cache.
"""

import tempfile
from collections import deque
from dataclasses import dataclass, field
from typing import IO, Final

from controller.turns import Turns

MOST_OF_ONE: Final = 512 * 1024
"""Bytes of one body in memory: prompts of 100,000 tokens stay there."""
_MOST_AT_ONCE: Final = 256 * 1024
"""Bytes of a piece in a file: whoever reads it has all of it in memory."""
_MESSAGES_TOGETHER: Final = 48 * 1024 * 1024
"""Bytes: three of the largest messages."""


@dataclass
class Budget:
    """Memory for the pieces of all bodies together, and for messages that bring large ones."""

    left: int = 96 * 1024 * 1024
    """Bytes. 100 bodies of 20 MB, each kept twice, are to fit into 400 MB with all else."""
    directory: str | None = None
    """For files; None: where the system keeps temporary ones."""
    turns: Turns = field(default_factory=lambda: Turns(_MESSAGES_TOGETHER))
    """Of large messages, in bytes: those that have begun can end. Not taken from `left`, which requests may use up that
    wait for such a message."""


@dataclass
class Pieces:
    """Pieces in order. The first ones can be dropped; what is not can be read again."""

    budget: Budget
    _kept: deque[bytes | tuple[int, int]] = field(default_factory=deque)
    """Bytes, or offset and size in the file."""
    _first: int = 0
    """How many were dropped."""
    _in_memory: int = 0
    _file: IO[bytes] | None = None
    _file_size: int = 0
    size: int = 0
    """Bytes of all pieces that were ever added."""

    def __len__(self) -> int:
        """How many pieces there were, those that were dropped included."""
        return self._first + len(self._kept)

    @property
    def kept(self) -> int:
        """How many pieces were not dropped."""
        return len(self._kept)

    @property
    def holds(self) -> bool:
        """Whether there is a piece that was not dropped."""
        return bool(self._kept)

    def add(self, piece: bytes) -> None:
        """A piece that is too large for memory is kept as several. Raises OSError when there is no room on the disk."""
        size = len(piece)
        self.size += size
        if self._in_memory + size <= MOST_OF_ONE and size <= self.budget.left:
            self._in_memory += size
            self.budget.left -= size
            self._kept.append(piece)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self.budget.directory)  # noqa: SIM115 closed by clear
        self._file.seek(self._file_size)
        view = memoryview(piece)
        for start in range(0, size, _MOST_AT_ONCE):
            part = view[start : start + _MOST_AT_ONCE]
            self._file.write(part)
            self._kept.append((self._file_size, len(part)))
            self._file_size += len(part)

    def read(self, number: int) -> bytes:
        """One piece, which was not dropped."""
        kept = self._kept[number - self._first]
        if isinstance(kept, bytes):
            return kept
        assert self._file is not None
        self._file.seek(kept[0])
        return self._file.read(kept[1])

    def in_memory(self) -> tuple[bytes, ...] | None:
        """All pieces that were not dropped; None where some are in a file."""
        kept = tuple(piece for piece in self._kept if isinstance(piece, bytes))
        return kept if len(kept) == len(self._kept) else None

    def first(self) -> bytes:
        """The first piece that was not dropped."""
        return self.read(self._first)

    def drop(self) -> bytes:
        """Take the first piece away, and return it."""
        piece = self.read(self._first)
        kept = self._kept.popleft()
        self._first += 1
        if isinstance(kept, bytes):
            self._in_memory -= len(kept)
            self.budget.left += len(kept)
        elif not self._kept:
            self._close()
        return piece

    def clear(self) -> None:
        """Take all pieces away."""
        self._first += len(self._kept)
        self._kept.clear()
        self.budget.left += self._in_memory
        self._in_memory = 0
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._file_size = None, 0
