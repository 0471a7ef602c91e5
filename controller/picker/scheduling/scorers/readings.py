"""Scorers on what the endpoints report of themselves, with the formulas of the field.

A reading tells of the past, so what was sent since then is added: a burst between two scrapes spreads. An endpoint
without a fresh reading counts as much as the busiest one that has: a pod that fell silent when it was idle attracts
nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controller.picker.endpoints import Endpoint
from controller.picker.model_servers import Reading
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings


@dataclass(frozen=True)
class QueueScorer:
    """1 for the shortest queue, 0 for the longest."""

    surroundings: Surroundings

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        oldest = now - self.surroundings.staleness
        return least_is_best(_reported(endpoints, lambda reading: reading.waiting, oldest=oldest))


@dataclass(frozen=True)
class RunningRequestsSizeScorer:
    """1 for the fewest running requests, 0 for the most."""

    surroundings: Surroundings

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        oldest = now - self.surroundings.staleness
        return least_is_best(_reported(endpoints, lambda reading: reading.running, oldest=oldest))


@dataclass(frozen=True)
class LoadAwareScorer:
    """One half without a queue, falling to 0 at the threshold."""

    surroundings: Surroundings
    threshold: int = 128
    """Requests."""

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise ValueError(f"threshold {self.threshold}: must be above 0")

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        oldest = now - self.surroundings.staleness
        queues = _reported(endpoints, lambda reading: reading.waiting, oldest=oldest)
        return [0.5 * (1.0 - min(queue, self.threshold) / self.threshold) for queue in queues]


@dataclass(frozen=True)
class KvCacheUtilizationScorer:
    """The share of the KV cache that is free; of an endpoint that does not say, as little as any."""

    surroundings: Surroundings

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        oldest = now - self.surroundings.staleness
        uses = [
            endpoint.reading.kv_use if endpoint.reading and endpoint.answered_at >= oldest else None
            for endpoint in endpoints
        ]
        fullest = max((use for use in uses if use is not None), default=0.0)
        return [1.0 - (fullest if use is None else use) for use in uses]


def least_is_best(values: Sequence[float]) -> list[float]:
    """1 for the least, 0 for the greatest, in proportion between; 1 for all when they are equal."""
    least, most = min(values), max(values)
    if least == most:
        return [1.0] * len(values)
    return [(most - value) / (most - least) for value in values]


def _reported(endpoints: Sequence[Endpoint], count: Callable[[Reading], int], *, oldest: float) -> list[float]:
    """Requests by the endpoints' readings, and what was sent since."""
    known = [
        count(endpoint.reading) + max(0, len(endpoint.open) - endpoint.own_at_reading)
        if endpoint.reading and endpoint.answered_at >= oldest
        else None
        for endpoint in endpoints
    ]
    most = max((value for value in known if value is not None), default=0)
    return [
        max(most, len(endpoint.open)) if value is None else value
        for value, endpoint in zip(known, endpoints, strict=True)
    ]
