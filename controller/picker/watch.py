"""How closely the endpoints of a pool are watched: what its policy says, and what the process does otherwise."""

from dataclasses import dataclass
from typing import Final

from controller.plugins.types import Health


@dataclass(frozen=True)
class Watch:
    """All times are seconds; a reading is never asked for less often than it goes stale."""

    scrape_interval: float = 1.0
    """Between two readings of an endpoint."""
    staleness: float = 3.0
    """Age from which on a reading is too old."""
    first_byte_timeout: float | None = None
    """Time without a first byte after which an endpoint hangs; None: as long as the learned rates call for."""


DEFAULT_WATCH: Final = Watch()


def watch_of(health: Health, *, default: Watch) -> Watch:
    """The watch that a policy asks for. What it leaves open is the default, or gives way to what the policy says."""
    interval, staleness = health.scrape_interval, health.metrics_staleness_threshold
    if staleness is None:
        staleness = max(default.staleness, interval or 0.0)
    return Watch(
        scrape_interval=min(default.scrape_interval if interval is None else interval, staleness),
        staleness=staleness,
        first_byte_timeout=health.first_byte_timeout or default.first_byte_timeout,
    )
