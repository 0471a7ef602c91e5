"""The filter that keeps a prompt where it is cached until that costs too much."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.matching import matched_chunks


@dataclass(frozen=True)
class PrefixCacheAffinityFilter:
    """Endpoints that have most of the prompt, unless they would let it wait for too long."""

    surroundings: Surroundings
    affinity_threshold: float = 0.8
    """Share of the prompt that an endpoint must have; 0 turns the filter off."""
    exploration_probability: float = 0.0
    """Of requests that all endpoints are open to."""
    max_ttft_penalty_ms: float = 18_000.0
    """By which the first token may come later than elsewhere; 0: by any time."""
    ttft_source: str = "prefillThroughput"
    """What tells the wait: the throughput below, or `latencyPredictor`: the rates that were learned."""
    peak_prefill_throughput: float = 15_928.0
    """Tokens per second that an endpoint computes."""

    def __post_init__(self) -> None:
        if self.peak_prefill_throughput <= 0:
            raise ValueError(f"peak_prefill_throughput {self.peak_prefill_throughput}: must be above 0")

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        if len(endpoints) <= 1 or self.affinity_threshold <= 0 or not request.hashes:
            return endpoints
        if self.exploration_probability and self.surroundings.rng.random() < self.exploration_probability:
            return endpoints
        needed = self.affinity_threshold * request.prompt_bytes
        held = [OFFSETS[chunks] >= needed for chunks in matched_chunks(request, endpoints)]
        sticky = [endpoint for endpoint, is_held in zip(endpoints, held, strict=True) if is_held]
        others = [endpoint for endpoint, is_held in zip(endpoints, held, strict=True) if not is_held]
        if not sticky or not others:
            return endpoints
        penalty = self._wait_ms(sticky) - self._wait_ms(others)
        return endpoints if 0 < self.max_ttft_penalty_ms < penalty else sticky

    def _wait_ms(self, endpoints: Sequence[Endpoint]) -> float:
        """Milliseconds until the least busy of them has computed what it was sent."""
        if self.ttft_source == "latencyPredictor":
            rates = self.surroundings.memory.rates
            return 1000 * min(rates.expected(endpoint.backlog, endpoint.slowness) for endpoint in endpoints)
        least = min(endpoint.backlog for endpoint in endpoints)
        return least / BYTES_PER_TOKEN / self.peak_prefill_throughput * 1000
