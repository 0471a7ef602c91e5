"""Which worker of NGINX asks, and when it is no more.

NGINX gathers the ends of requests for some milliseconds, and nobody tells of those that were under way at a worker that
is killed. The system knows which process is at the other end of a Unix socket, and when it ends.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from itertools import count
from typing import Final

NOBODY: Final = 0
"""A worker that cannot be told, or whose end cannot be seen: it is of another container, or not there any more."""
TELLS_WITHIN: Final = 1.0
"""Seconds in which what a worker wrote before its end has been read; it is read on every 25 ms or so."""
_CREDENTIALS: Final = struct.Struct("3i")
"""The process, the user and the group. Source: unix(7)."""


class Workers:
    """Numbers for processes, in the order in which they were met. Only for the thread of one event loop."""

    def __init__(self, *, ended: Callable[[int], object]) -> None:
        """`ended` is called with the number of a worker some time after its end."""
        self._ended = ended
        self._numbers = count(NOBODY + 1)
        self._met: dict[int, int] = {}
        """By the id of the process, as long as it runs."""

    def __len__(self) -> int:
        return len(self._met)

    def at(self, transport: asyncio.BaseTransport) -> int:
        """The number of the worker that opened a connection, or `NOBODY`."""
        connection = transport.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            return NOBODY
        try:
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return NOBODY
        pid: int = _CREDENTIALS.unpack(told)[0]
        # One that is of another namespace has none.
        return self._met.get(pid) or (self._meet(pid) if pid > 0 else NOBODY)

    def _meet(self, pid: int) -> int:
        try:
            watched = os.pidfd_open(pid)
        except OSError:
            return NOBODY
        number = self._met[pid] = next(self._numbers)
        asyncio.get_running_loop().add_reader(watched, self._left, watched, pid)
        return number

    def _left(self, watched: int, pid: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(watched)
        with contextlib.suppress(OSError):
            os.close(watched)
        loop.call_later(TELLS_WITHIN, self._ended, self._met.pop(pid))
