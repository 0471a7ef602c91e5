"""The file to which nginx appends a line for each inference request that ended.

nginx gathers lines for some milliseconds and writes them with one system call, which costs a request a tenth of what it
costs to tell the picker by a request or from a script. What was read is given back to the file system, so the file
takes no room while its size grows: nginx goes on writing behind it, and nothing is lost between reading and cutting.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

FREED_EVERY: Final = 4 * 1024 * 1024
"""Bytes that were read before their room is given back."""
MOST: Final = 1024 * 1024
"""Bytes taken in one turn: 4,000 lines, 15 ms of work, in which picks wait."""
_KEEP_SIZE_AND_PUNCH_HOLE: Final = 0x01 | 0x02


class CompletionsFile:
    """Reads the file from where it ended when it was first looked at: older lines are of another picker's requests."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist yet."""
        self._path = path
        self._file: int | None = None
        self._read = 0
        """Bytes from the start of the file."""
        self._freed = 0
        self._rest = b""
        """The beginning of a line whose end was not written yet."""
        self._looked = False

    def read(self) -> bytes:
        """Whole lines that came since the last call, at most about `MOST` bytes; empty when there are none."""
        if self._file is None and not self._open():
            return b""
        assert self._file is not None
        found = os.pread(self._file, MOST, self._read)
        if not found:
            self._follow()
            return b""
        self._read += len(found)
        if self._read - self._freed >= FREED_EVERY:
            self._free()
        whole, newline, rest = (self._rest + found).rpartition(b"\n")
        self._rest = rest
        return whole + newline

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> bool:
        looked, self._looked = self._looked, True
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self._read = 0 if looked else os.fstat(self._file).st_size
        self._freed = 0
        self._rest = b""
        self._free()
        return True

    def _follow(self) -> None:
        """Turn to another file in its place, or to the start of one that was cut."""
        assert self._file is not None
        mine = os.fstat(self._file)
        if mine.st_nlink == 0:
            self.close()
        elif mine.st_size < self._read:
            self._read = self._freed = 0
            self._rest = b""

    def _free(self) -> None:
        """Give the room of what was read back to the file system."""
        assert self._file is not None
        length = self._read - self._freed
        if length and not _punch_hole(self._file, offset=self._freed, length=length):
            # A file system that cannot: lines that nginx writes between these two calls would be lost, and are found by
            # what the endpoints report.
            if os.fstat(self._file).st_size == self._read:
                os.ftruncate(self._file, 0)
                self._read = 0
            self._freed = self._read
            return
        self._freed = self._read


def _punch_hole(file: int, *, offset: int, length: int) -> bool:
    """Whether the file system could do it. Python has no call for it."""
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    except AttributeError:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(file, _KEEP_SIZE_AND_PUNCH_HOLE, offset, length) == 0)
