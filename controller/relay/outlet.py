"""What goes on to an endpoint or to the client: pieces that somebody waits for."""

import asyncio
from collections.abc import Iterator, Sequence

from controller.relay.errors import PickerFailed, RelayError
from controller.relay.pieces import Budget, Pieces


class Outlet:
    """A body that comes bit by bit, for one reader."""

    def __init__(self, budget: Budget) -> None:
        self._pieces = Pieces(budget)
        self._taken = 0
        self._reader: asyncio.Future[None] | None = None
        """Waits for news."""
        self._writer: asyncio.Future[None] | None = None
        """Waits for room."""
        self._failure: RelayError | None = None
        self._is_cleared = False
        self._is_late = False
        self.has_ended = False

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return self._pieces.size

    @property
    def backlog(self) -> int:
        """Bytes that were not taken yet."""
        return self._pieces.size - self._taken

    def add(self, piece: bytes) -> None:
        if piece:
            self._pieces.add(piece)
            self._tell()

    def end(self) -> None:
        self.has_ended = True
        self._tell()

    def fail(self, problem: RelayError) -> None:
        """Whoever waits for more, or will, gets the problem instead."""
        if not self.has_ended and self._failure is None:
            self._failure = problem
            self._tell()
            _wake(self._writer)

    async def wait_for_end(self, *, timeout: float) -> None:
        """Returns when all came, or none will, or the time is over."""
        if self.has_ended or self._failure is not None:
            return
        self._is_late = False
        timer = asyncio.get_running_loop().call_later(timeout, self._be_late)
        try:
            while not (self.has_ended or self._failure is not None or self._is_late):
                await self._news()
        finally:
            timer.cancel()

    def whole(self) -> Sequence[bytes] | None:
        """All pieces, where all came and are in memory."""
        return self._pieces.in_memory() if self.has_ended and not self._is_cleared else None

    def beginning(self, size: int) -> Iterator[bytes]:
        """So many bytes from the beginning, of a body of which no piece was taken."""
        for number in range(len(self._pieces)):
            if size <= 0:
                return
            piece = self._pieces.read(number)[:size]
            size -= len(piece)
            yield piece

    async def piece(self, number: int) -> bytes:
        """One of the pieces, which can be had again; empty after the last. Raises the problem that there was."""
        while number >= len(self._pieces) or self._is_cleared:
            if self._failure is not None:
                raise self._failure
            if self.has_ended:
                return b""
            await self._news()
        return self._pieces.read(number)

    async def take(self) -> bytes:
        """The next piece, which is gone then; empty after the last. Raises the problem that there was."""
        if not self._pieces.holds:
            await self.piece(len(self._pieces))
            if not self._pieces.holds:
                return b""
        piece = self._pieces.drop()
        self._taken += len(piece)
        _wake(self._writer)
        return piece

    async def wait_until_below(self, backlog: int) -> None:
        """Returns when fewer bytes wait, or none will."""
        while self.backlog >= backlog and self._failure is None and not self.has_ended:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def clear(self) -> None:
        """Take all away. Whoever reads still gets a problem."""
        self._failure = PickerFailed("the exchange is over")
        self._is_cleared = True
        self._pieces.clear()
        self._tell()
        _wake(self._writer)

    def _be_late(self) -> None:
        self._is_late = True
        self._tell()

    def _tell(self) -> None:
        _wake(self._reader)

    async def _news(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
