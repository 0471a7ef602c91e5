"""The scorer on LoRA adapters."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings


@dataclass(frozen=True)
class LoraAffinityScorer:
    """1 where the adapter runs, .8 where it can be loaded, .6 where it waits, else 0; 1 everywhere for a base model."""

    surroundings: Surroundings

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        if not request.adapter:
            return [1.0] * len(endpoints)
        return [_affinity(endpoint, request.adapter) for endpoint in endpoints]


def _affinity(endpoint: Endpoint, adapter: str) -> float:
    running: set[str] = set(endpoint.adapters_in_use)
    waiting: set[str] = set()
    if endpoint.reading is not None:
        running.update(endpoint.reading.running_adapters)
        waiting.update(endpoint.reading.waiting_adapters)
    if adapter in running:
        return 1.0
    if len(running | waiting) < endpoint.max_adapters:
        return 0.8
    return 0.6 if adapter in waiting else 0.0
