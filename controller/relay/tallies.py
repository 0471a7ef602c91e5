"""What became of the requests of each pool: plain numbers that exchanges add to."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.relay.errors import Fault

BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds. Pickers answer in milliseconds, or let requests wait in a queue, which the relay's patience of 90 s ends."""


class Outcome(StrEnum):
    """How an exchange ended; the label of the metric."""

    SERVED = "served"
    REFUSED = "refused"
    """Answered by the picker itself."""
    PICKER_FAILED = "picker_failed"
    """Given back to NGINX, which goes on as the pool's failure mode says."""
    ENDPOINT_FAILED = "endpoint_failed"
    """No endpoint that was named answered."""
    BROKEN = "broken"
    """The answer ended early, because of a picker or an endpoint."""
    GIVEN_UP = "given_up"
    """By the client."""


@dataclass
class Durations:
    """A histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """By the first of `BOUNDS` that is no smaller; the last one is beyond them."""
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass
class Tally:
    """Of one pool."""

    under_way: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    """Of the picker, also where the answer went on without it."""
    tries_failed: int = 0
    """Endpoints that were asked, and did not answer."""
    choices: Durations = field(default_factory=Durations)
    """From the end of what NGINX reads of a request until its picker chose."""


class Tallies:
    """By pool."""

    def __init__(self) -> None:
        self.pools: dict[str, Tally] = {}

    def of(self, pool: str) -> Tally:
        """That of a pool, or of all that is no pool for an empty name."""
        if pool not in self.pools:
            self.pools[pool] = Tally()
        return self.pools[pool]

    def keep(self, pools: Iterable[str]) -> None:
        """Forget pools that are gone, as soon as they have nothing under way."""
        gone = self.pools.keys() - set(pools) - {""}
        for name in gone:
            if not self.pools[name].under_way:
                del self.pools[name]

    def totals(self) -> dict[str, int]:
        """Of all pools, for a reader."""
        known = self.pools.values()
        outcomes = {item.value: sum(tally.outcomes[item] for tally in known) for item in Outcome}
        return {"under_way": sum(tally.under_way for tally in known), **outcomes}
