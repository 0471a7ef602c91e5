"""Scorers on what this picker has in flight, with the formulas of the field."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.matching import matched_chunks


@dataclass(frozen=True)
class ActiveRequestScorer:
    """1 for an idle endpoint, falling to 0 for the one with the most requests in flight."""

    surroundings: Surroundings
    idle_threshold: int = 0
    """Requests in flight up to which an endpoint is idle."""
    max_busy_score: float = 1.0
    """Most that an endpoint gets that is not idle."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_busy_score <= 1:
            raise ValueError(f"max_busy_score {self.max_busy_score}: must be from 0 to 1")

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        counts = [len(endpoint.open) for endpoint in endpoints]
        most = max(counts)
        return [
            1.0 if count <= self.idle_threshold else (most - count) / most * self.max_busy_score for count in counts
        ]


@dataclass(frozen=True)
class TokenLoadScorer:
    """1 without tokens to compute, the request's own included, falling to 0 at the threshold."""

    surroundings: Surroundings
    queue_threshold_tokens: int = 4_194_304

    def __post_init__(self) -> None:
        if self.queue_threshold_tokens <= 0:
            raise ValueError(f"queue_threshold_tokens {self.queue_threshold_tokens}: must be above 0")

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        most = self.queue_threshold_tokens * BYTES_PER_TOKEN
        size = request.prompt_bytes
        return [
            1.0 - min(endpoint.backlog + size - OFFSETS[chunks], most) / most
            for endpoint, chunks in zip(endpoints, matched_chunks(request, endpoints), strict=True)
        ]
