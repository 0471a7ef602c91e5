"""How fast a queue drains, for an honest Retry-After."""

import math
from typing import Final

HALF_LIFE: Final = 10.0
"""Seconds of waiting after which an observation counts half: long enough for some releases of slow models, short
enough to follow an autoscaler."""
SHORTEST: Final = 1
LONGEST: Final = 60
"""Seconds; an estimate beyond is a guess, and a client that stays away longer finds an idle pool."""
UNKNOWN: Final = 5
"""Seconds to come back while nothing is known yet."""
_DECAY: Final = math.log(2) / HALF_LIFE


class DrainMeter:
    """Releases per second while something waits. Time without a queue says nothing and does not count."""

    def __init__(self) -> None:
        self._at: float | None = None
        """When something began to wait, or was counted last; None while nothing waits."""
        self._released = 0.0
        self._seconds = 0.0

    def advance(self, *, now: float, is_waiting: bool, released: int = 0) -> None:
        """Count what was released up to now. `is_waiting` says whether something waits from here on."""
        if self._at is not None and now > self._at:
            elapsed = now - self._at
            kept = math.exp(-elapsed * _DECAY)
            self._released *= kept
            self._seconds = self._seconds * kept + (1 - kept) / _DECAY
        self._released += released
        self._at = now if is_waiting else None

    def retry_after(self, ahead: int) -> int:
        """Whole seconds until a place is free behind so many others, within the limits."""
        if self._released < 0.5:
            # Not even half a release of weight is left: it is new, or it stands still.
            return UNKNOWN if self._seconds < HALF_LIFE / 2 else LONGEST
        return min(max(math.ceil((ahead + 1) * self._seconds / self._released), SHORTEST), LONGEST)
