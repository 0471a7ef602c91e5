"""When Python looks for cycles of objects that nobody has any more."""

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 100)
"""Objects made between two looks at the young ones, and how many looks at one generation make one at the next."""


def collect_seldom() -> None:
    """Look through the objects of this process seldom, and not at all through what exists now.

    A control plane holds every resource of a cluster for long and makes few cycles. With Python's own thresholds, every
    second build of 1,000 routes looked through all of them, which took 130 ms, more than the build. An exchange of the
    relay leaves no cycle behind, and was looked for in a sixth of its time.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
