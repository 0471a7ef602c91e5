"""The saturation detectors as filters: endpoints that are full by their thresholds are left out of a pick."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from controller.picker.endpoints import Endpoint
from controller.picker.flow_control.loads import load_of
from controller.picker.flow_control.saturation import ConcurrencyDetector, Detector, UtilizationDetector
from controller.picker.flow_control.settings import ConcurrencyMode, ConcurrencyParameters, UtilizationParameters
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings


@dataclass(frozen=True)
class UtilizationDetectorFilter:
    """Endpoints whose queue and KV cache are below the thresholds; all where none is."""

    surroundings: Surroundings
    queue_depth_threshold: int = 5
    kv_cache_util_threshold: float = 0.8
    metrics_staleness_threshold: str = "3s"
    """Age from which on a reading counts for nothing; no less than the pool's."""
    headroom: float = 0.0

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        return _with_room(self._detector, endpoints, now=now, staleness=self.surroundings.staleness) or endpoints

    @cached_property
    def _detector(self) -> Detector:
        parameters = UtilizationParameters.model_validate(
            {
                "queue_depth_threshold": self.queue_depth_threshold,
                "kv_cache_util_threshold": self.kv_cache_util_threshold,
                "metrics_staleness_threshold": self.metrics_staleness_threshold,
                "headroom": self.headroom,
            }
        )
        threshold = max(parameters.metrics_staleness_threshold, self.surroundings.staleness)
        return UtilizationDetector(parameters.model_copy(update={"metrics_staleness_threshold": threshold}))


@dataclass(frozen=True)
class ConcurrencyDetectorFilter:
    """Endpoints with fewer requests, or tokens, in flight than the limit; it may leave none."""

    is_about_load: ClassVar[bool] = True

    surroundings: Surroundings
    max_concurrency: int = 100
    max_token_concurrency: int = 1_000_000
    headroom: float = 0.0
    concurrency_mode: str = "requests"

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        return _with_room(self._detector, endpoints, now=now, staleness=self.surroundings.staleness)

    @cached_property
    def _detector(self) -> Detector:
        return ConcurrencyDetector(
            ConcurrencyParameters(
                max_concurrency=self.max_concurrency,
                max_token_concurrency=self.max_token_concurrency,
                headroom=self.headroom,
                concurrency_mode=ConcurrencyMode(self.concurrency_mode),
            )
        )


def _with_room(
    detector: Detector, endpoints: Sequence[Endpoint], *, now: float, staleness: float
) -> Sequence[Endpoint]:
    return [endpoint for endpoint in endpoints if detector.has_room(load_of(endpoint, now=now, staleness=staleness))]
