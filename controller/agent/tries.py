"""How long an instance waits before it asks the control plane again."""

import random
from typing import Final

from controller.backoff import Backoff

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries. A control plane that comes back meets its instances within this time."""


def tries(rng: random.Random) -> Backoff:
    """Pauses that differ between instances, so that they do not come at once."""
    return Backoff(first=_FIRST_PAUSE, longest=_LONGEST_PAUSE, draw=rng.random)
