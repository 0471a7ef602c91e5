"""Growing delays with jitter, so that many who wait for the same thing do not come back at once."""

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from `first` to `longest` seconds, each shortened by up to a half."""

    def __init__(self, *, first: float, longest: float, draw: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._draw = draw
        self._next = first

    def delay(self, *, at_least: float = 0.0) -> float:
        """Seconds to wait after another failure."""
        delay = self._next * (1 - self._draw() / 2)
        self._next = min(self._next * 2, self._longest)
        return max(delay, at_least)

    def reset(self) -> None:
        """After a success."""
        self._next = self._first
