"""Pauses between tries."""

import random
from dataclasses import dataclass
from typing import Final

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries. A control plane that comes back meets its instances within this time."""


@dataclass
class Backoff:
    """Pauses that double up to a limit, each shortened by a random share so that instances do not come at once."""

    rng: random.Random
    _next: float = _FIRST_PAUSE

    def pause(self) -> float:
        """Seconds to wait this time."""
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause * self.rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the shortest again."""
        self._next = _FIRST_PAUSE
