"""What became of the requests of one pool, as plain numbers."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from controller.picker.flow_control.refusals import DROPS, Drop
from controller.picker.flow_control.tickets import Waiting

DISPATCHED: Final = "Dispatched"
"""Outcome of an admitted request, as in the reference."""
WAIT_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
"""Upper bounds of the buckets of waits; the last is the longest wait there is."""
MOST_PRIORITIES: Final = 64
"""Priorities that are told apart in one pool. They come from the configuration, but a bound costs nothing."""
OTHER: Final = "other"
Label = int | str
"""A priority, or `OTHER`."""


@dataclass(slots=True)
class Waits:
    """A histogram of waits."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(WAIT_SECONDS) + 1))
    """Not cumulative; the last is for everything above."""
    total: float = 0.0
    """Seconds."""

    def add(self, seconds: float) -> None:
        """Count a wait."""
        self.buckets[bisect_left(WAIT_SECONDS, seconds)] += 1
        self.total += seconds


class Counts:
    """Counters of one pool; every request is counted once, when it ends."""

    def __init__(self) -> None:
        self.admitted_at_once: Counter[Label] = Counter()
        """By priority."""
        self.drops: Counter[tuple[Label, Drop]] = Counter()
        self.waits: dict[tuple[Label, str], Waits] = {}
        """Of requests that did not get in at once, by priority and outcome."""

    def at_once(self, priority: int) -> None:
        """A request did not have to wait."""
        at_once = self.admitted_at_once
        at_once[priority if priority in at_once else self._label(priority)] += 1

    def dispatched(self, waiting: Waiting, *, now: float) -> None:
        """A request was admitted after a wait."""
        self._wait(self._label(waiting.priority), DISPATCHED, now - waiting.entered)

    def ended(self, waiting: Waiting, drop: Drop, *, now: float) -> None:
        """A request was not admitted."""
        label = self._label(waiting.priority)
        self.drops[label, drop] += 1
        self._wait(label, DROPS[drop].outcome, now - waiting.entered)

    def by_outcome(self) -> Counter[tuple[Label, str]]:
        """Requests by priority and outcome."""
        outcomes: Counter[tuple[Label, str]] = Counter()
        for label, count in self.admitted_at_once.items():
            outcomes[label, DISPATCHED] += count
        for key, waits in self.waits.items():
            outcomes[key] += sum(waits.buckets)
        return outcomes

    def _wait(self, label: Label, outcome: str, seconds: float) -> None:
        waits = self.waits.get((label, outcome))
        if waits is None:
            waits = self.waits[label, outcome] = Waits()
        waits.add(max(0.0, seconds))

    def _label(self, priority: int) -> Label:
        """Priorities are made known by counting them among those admitted at once, with 0 to begin with."""
        known = self.admitted_at_once
        if priority not in known:
            if len(known) >= MOST_PRIORITIES:
                return OTHER
            known[priority] = 0
        return priority
