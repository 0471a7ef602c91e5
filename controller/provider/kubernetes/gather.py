"""Many changes to one: the first is passed on when it is quiet for a moment, and soon in any case."""

import asyncio


class Gather:
    """Waits for a change, then until none came for `quiet` seconds, but at most `longest` seconds in all.

    A deployment of 100 pods is some hundred events within a second, and each snapshot costs tens of milliseconds.
    """

    def __init__(self, *, quiet: float = 0.05, longest: float = 0.2) -> None:
        self._quiet = quiet
        self._longest = longest
        self._first: float | None = None
        self._newest = 0.0
        self._touched = asyncio.Event()

    def touch(self) -> None:
        """Something changed."""
        self._newest = asyncio.get_running_loop().time()
        if self._first is None:
            self._first = self._newest
        self._touched.set()

    async def changed(self) -> float:
        """Waits for a change to be passed on. Returns when its first sign was seen, in loop time."""
        await self._touched.wait()
        while True:
            remaining = self._due() - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            await asyncio.sleep(remaining)
        first = self._first or self._newest
        self._first = None
        self._touched.clear()
        return first

    def _due(self) -> float:
        first = self._newest if self._first is None else self._first
        return min(self._newest + self._quiet, first + self._longest)
