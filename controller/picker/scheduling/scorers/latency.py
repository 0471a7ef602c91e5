"""The scorer on latency that was learned from answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Scorer, Surroundings
from controller.picker.scheduling.scorers.prefixes import PrefixCacheScorer
from controller.picker.scheduling.scorers.readings import KvCacheUtilizationScorer, QueueScorer


@dataclass(frozen=True)
class LatencyScorer:
    """1 for the least latency, 0 for the greatest: of the first byte and of each byte after it, lately.

    The time that the endpoint's backlog takes is added, so that the fastest one is not overrun before it shows. An
    endpoint that has answered nothing yet counts as average. While none has answered, free KV cache, short queues and
    cached prefixes count.
    """

    surroundings: Surroundings
    ttft_weight: float = 0.8
    """Of the time to the first byte."""
    tpot_weight: float = 0.2
    """Of the time per byte."""
    headroom_selection_strategy: str = "least"
    """Counts where requests carry an objective for their latency, which they do not here."""
    composite_kv_weight: float = 1.0
    composite_queue_weight: float = 1.0
    composite_prefix_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.ttft_weight < 0 or self.tpot_weight < 0 or not self.ttft_weight + self.tpot_weight:
            raise ValueError("ttft_weight and tpot_weight: must not be below 0, nor both 0")

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        if all(endpoint.first_byte_time is None for endpoint in endpoints):
            return self._composite(request, endpoints, now=now)
        seconds = self.surroundings.memory.rates.seconds_per_token / BYTES_PER_TOKEN
        firsts = [
            first + endpoint.backlog * seconds * endpoint.slowness
            for first, endpoint in zip(_known([one.first_byte_time for one in endpoints]), endpoints, strict=True)
        ]
        parts = [
            (weight, values)
            for weight, values in (
                (self.ttft_weight, _part(firsts)),
                (self.tpot_weight, _part(_known([one.byte_time for one in endpoints]))),
            )
            if weight and values
        ]
        total = sum(weight for weight, _ in parts)
        if not total:
            return [1.0] * len(endpoints)
        return [
            max(0.0, 1.0 - sum(weight * values[place] for weight, values in parts) / total)
            for place in range(len(endpoints))
        ]

    def _composite(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        parts: tuple[tuple[float, Scorer], ...] = (
            (self.composite_kv_weight, KvCacheUtilizationScorer(self.surroundings)),
            (self.composite_queue_weight, QueueScorer(self.surroundings)),
            (self.composite_prefix_weight, PrefixCacheScorer(self.surroundings)),
        )
        total = sum(weight for weight, _ in parts) or 1.0
        columns = [
            [weight / total * score for score in scorer.score(request, endpoints, now=now)] for weight, scorer in parts
        ]
        return [min(1.0, sum(row)) for row in zip(*columns, strict=True)]


def _known(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None]
    mean = fmean(known) if known else 0.0
    return [mean if value is None else value for value in values]


def _part(values: Sequence[float]) -> list[float]:
    """0 for the least, 1 for the greatest; nothing when they are equal, so that they do not count."""
    least, most = min(values), max(values)
    return [(value - least) / (most - least) for value in values] if most > least else []
