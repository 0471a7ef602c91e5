"""How many versions of nginx's workers run at once: each reload leaves those behind that still have streams."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

FREE: Final = 8
"""Generations of retiring workers that hold up no reload; a worker that only ends streams takes some 15 MB."""
LONGEST_PAUSE: Final = 600.0
"""Seconds between two reloads at most: with a worker's hour for its streams, some twenty generations."""


class Generations:
    """Workers that reloads have retired. Nothing cuts their streams, so what is held up is the next reload."""

    def __init__(self, *, is_alive: Callable[[int], bool] = lambda process: Path(f"/proc/{process}").exists()) -> None:
        self._is_alive = is_alive
        self._retired: deque[frozenset[int]] = deque()
        self._reloaded_at = 0.0

    def retire(self, workers: frozenset[int], *, now: float) -> None:
        """A reload put others in the place of these workers."""
        self._reloaded_at = now
        if workers:
            self._retired.append(workers)

    def pause(self, now: float) -> float:
        """Seconds to wait before the next reload: none for the first few, then twice as long for each generation."""
        self._retired = deque(each for each in self._retired if any(map(self._is_alive, each)))
        beyond = len(self._retired) - FREE
        if beyond < 0:
            return 0.0
        spacing = min(2.0 ** min(beyond, 20), LONGEST_PAUSE)
        return max(0.0, self._reloaded_at + spacing - now)
