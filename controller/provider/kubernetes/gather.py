"""Many changes to one: the first is passed on when it is quiet for a moment, and soon in any case."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

_SHARE: Final = 8.0
"""How much longer than the work on it a stream may be gathered: work takes a ninth of the time at most."""


class Gather:
    """Waits for a change, then until none came for `quiet` seconds, but at most `longest` seconds in all.

    A deployment of 100 pods is some hundred events within a second, and each snapshot costs tens of milliseconds.
    Changes that came while the caller dealt with the last ones are a stream, whose end is worth waiting for: until none
    came for as long as dealing with them took, but eight times as long in all, and `stream` seconds at most. Each
    snapshot in the middle of one is work for every replica and a reload for every instance, which the API server pays
    for too where they share processors.
    """

    def __init__(
        self,
        *,
        quiet: float = 0.05,
        longest: float = 0.2,
        stream: float = 1.0,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`clock` is that of the running loop unless told otherwise."""
        self._quiet = quiet
        self._longest = longest
        self._stream = stream
        self._first: float | None = None
        self._newest = 0.0
        self._touched = asyncio.Event()
        self._passed_on: float | None = None
        """When changes were passed on last."""
        self._clock = clock or _loop_time
        self._sleep = sleep
        self._began: float | None = None
        """When the stream under way began; None where there is none."""
        self._is_calm = asyncio.Event()
        self._is_calm.set()

    def touch(self) -> None:
        """Something changed."""
        self._newest = self._clock()
        if self._first is None:
            self._first = self._newest
        self._touched.set()

    async def changed(self) -> float:
        """Waits for a change to be passed on. Returns when its first sign was seen, in loop time.

        To be called again when that change was dealt with.
        """
        asked = self._clock()
        quiet, longest, since = self._quiet, self._longest, 0.0
        self._note_stream(self._first is not None and self._passed_on is not None, now=asked)
        if self._first is not None and self._passed_on is not None:
            took = asked - self._passed_on
            longest = min(max(longest, _SHARE * took), self._stream)
            quiet, since = min(max(quiet, took), longest), asked
        await self._touched.wait()
        first = self._newest if self._first is None else self._first
        begun = max(since, first)
        while (remaining := min(max(self._newest, begun) + quiet, begun + longest) - self._clock()) > 0:
            await self._sleep(remaining)
        self._first = None
        self._touched.clear()
        self._passed_on = self._clock()
        return first

    async def calm(self, *, longest: float) -> None:
        """Waits for the end of a stream, until `longest` seconds after its beginning; at once where there is none.

        For work that can wait, and would make the stream take longer.
        """
        if self._began is not None and (remaining := self._began + longest - self._clock()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_calm.wait(), remaining)

    def _note_stream(self, is_under_way: bool, *, now: float) -> None:
        if not is_under_way:
            self._began = None
            self._is_calm.set()
        elif self._began is None:
            self._began = now
            self._is_calm.clear()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
