"""The API server's absence, told once by whoever notices first, and once when it is over."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from controller.errors import ApiError

log = logging.getLogger(__name__)

_SPREAD: Final = 0.3
"""Seconds over which those who waited come back, so that they do not come at once."""


class Outage:
    """Shared by everything that asks one API server the same kind of things."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._over = asyncio.Event()

    def began(self, problem: ApiError) -> None:
        self._over.clear()
        if self._since is None:
            self._since = self._clock()
            log.warning("API server does not answer, the last resources stay", extra={"problem": str(problem)})

    def ended(self) -> None:
        self._over.set()
        if self._since is not None:
            log.info("API server answers again", extra={"seconds": round(self._clock() - self._since, 1)})
            self._since = None

    async def over(self, *, within: float) -> bool:
        """Waits for the end, or some seconds. Returns whether it ended."""
        try:
            async with asyncio.timeout(within):
                await self._over.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(_SPREAD * random.random())
        return True
