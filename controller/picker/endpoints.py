"""What is known of one endpoint: its last reading, what is in flight to it, and whether it fails.

Plain attributes, changed by the scrape and the completions, read by filters and scorers some hundred thousand times a
second: what can be computed once per scrape is.
"""

import math
from enum import StrEnum

from controller.bundle import Engine, PoolEndpoint
from controller.picker.health import Health
from controller.picker.model_servers import Reading

KV_NEARLY_FULL = 0.9
"""Share of the KV cache above which requests begin to wait for blocks; vLLM preempts from about here."""


class Metrics(StrEnum):
    """What asking an endpoint for its metrics gave last."""

    UNREAD = "unread"
    """Not asked yet, or never answered."""
    READ = "read"
    MISSING = "missing"
    """It answers that it has none."""
    UNKNOWN = "unknown"
    """It answers a page on which no known program speaks, or one that cannot be parsed."""
    UNREACHABLE = "unreachable"
    """It did not answer the last time."""


class Endpoint:
    """One endpoint with all that the picker knows of it. Lives as long as its pod, whatever happens to its pools."""

    __slots__ = (
        "address",
        "answered_at",
        "engine",
        "foreign",
        "health",
        "is_strained",
        "key",
        "kv_pressure",
        "labels",
        "metrics",
        "name",
        "open",
        "own_at_reading",
        "reading",
        "reported",
        "retired",
        "scrape_failures",
        "scrape_failures_in_a_row",
        "uid",
        "waiting",
    )

    def __init__(self, source: PoolEndpoint) -> None:
        self.key = key_of(source)
        self.address, self.name, self.uid = self.key
        self.labels = source.labels
        self.engine: Engine | None = source.engine
        self.open: dict[str, float] = {}
        """Ids of the requests in flight, each with the time it was sent, oldest first."""
        self.health = Health()
        self.metrics = Metrics.UNREAD
        self.reported: Metrics | None = None
        """Why there is no reading, as logged; so that it is logged once."""
        self.reading: Reading | None = None
        self.answered_at = -math.inf
        """When it last answered a scrape, with a reading or by saying that there is none."""
        self.waiting = 0
        """As in the reading, 0 without one."""
        self.foreign = 0
        """Requests in the reading that this picker did not send."""
        self.own_at_reading = 0
        self.kv_pressure = 0.0
        """How close the KV cache is to full: 0 up to `KV_NEARLY_FULL`, 1 when full."""
        self.is_strained = False
        """Whether requests wait there, or soon will: the wait is more than the number of requests."""
        self.scrape_failures = 0
        self.scrape_failures_in_a_row = 0
        self.retired = False
        """No longer in any pool; kept while requests are in flight to it."""

    def renew(self, source: PoolEndpoint) -> None:
        """Take over what may change while it stays the same pod."""
        self.labels = source.labels
        self.engine = source.engine
        self.retired = False

    def read(self, reading: Reading, *, own: int, now: float) -> None:
        """Take a reading. `own` is how many of its requests are this picker's."""
        self._answered(Metrics.READ, now=now)
        self.reported = None
        self.reading = reading
        self.waiting = reading.waiting
        self.own_at_reading = own
        self.foreign = max(0, reading.running + reading.waiting - own)
        kv_use = reading.kv_use or 0.0
        self.kv_pressure = max(0.0, (kv_use - KV_NEARLY_FULL) / (1.0 - KV_NEARLY_FULL))
        self.is_strained = self.waiting > 0 or self.kv_pressure > 0

    def read_nothing(self, metrics: Metrics, *, now: float) -> None:
        """It answered without a reading: it is judged by what is in flight alone."""
        self._answered(metrics, now=now)
        self.reading = None
        self.waiting = self.foreign = self.own_at_reading = 0
        self.kv_pressure = 0.0
        self.is_strained = False

    def miss(self) -> None:
        """It did not answer a scrape. The last reading stays, and ages."""
        self.metrics = Metrics.UNREACHABLE
        self.scrape_failures += 1
        self.scrape_failures_in_a_row += 1

    def _answered(self, metrics: Metrics, *, now: float) -> None:
        self.metrics = metrics
        self.answered_at = now
        self.scrape_failures_in_a_row = 0


def key_of(source: PoolEndpoint) -> tuple[str, str, str]:
    """What makes an endpoint the same: address, name and uid of its pod."""
    return (source.address, source.name, source.uid)
