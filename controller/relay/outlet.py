"""What goes on to an endpoint or to the client: pieces that somebody waits for."""

import asyncio

from controller.relay.errors import PickerFailed, RelayError
from controller.relay.pieces import Budget, Pieces


class Outlet:
    """A body that comes bit by bit, for one reader."""

    def __init__(self, budget: Budget) -> None:
        self._pieces = Pieces(budget)
        self._taken = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: RelayError | None = None
        self._is_cleared = False
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
            self._news.set()

    def end(self) -> None:
        self.has_ended = True
        self._news.set()

    def fail(self, problem: RelayError) -> None:
        """Whoever waits for more, or will, gets the problem instead."""
        if not self.has_ended and self._failure is None:
            self._failure = problem
            self._news.set()
            self._room.set()

    async def wait_for_end(self, *, timeout: float) -> None:
        """Returns when all came, or none will, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not self.has_ended and self._failure is None:
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return

    async def piece(self, number: int) -> bytes:
        """One of the pieces, which can be had again; empty after the last. Raises the problem that there was."""
        while number >= len(self._pieces) or self._is_cleared:
            if self._failure is not None:
                raise self._failure
            if self.has_ended:
                return b""
            self._news.clear()
            await self._news.wait()
        return self._pieces.read(number)

    async def take(self) -> bytes:
        """The next piece, which is gone then; empty after the last. Raises the problem that there was."""
        await self.piece(len(self._pieces) - self._pieces.kept)
        if not self._pieces.holds:
            return b""
        piece = self._pieces.drop()
        self._taken += len(piece)
        self._room.set()
        return piece

    async def wait_until_below(self, backlog: int) -> None:
        """Returns when fewer bytes wait, or none will."""
        while self.backlog >= backlog and self._failure is None and not self.has_ended:
            self._room.clear()
            await self._room.wait()

    def clear(self) -> None:
        """Take all away. Whoever reads still gets a problem."""
        self._failure = PickerFailed("the exchange is over")
        self._is_cleared = True
        self._pieces.clear()
        self._news.set()
        self._room.set()
