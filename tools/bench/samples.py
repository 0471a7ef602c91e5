"""Statistics over a few rounds, or over the latencies of one."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError when there are no values."""
    return Spread(median=percentile(values, 0.5), low=percentile(values, 0.25), high=percentile(values, 0.75))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share in [0, 1] of the values lies, interpolated between the two nearest.

    Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
