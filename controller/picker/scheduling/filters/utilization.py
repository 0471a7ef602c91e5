"""The filter on how busy endpoints are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from controller.picker.endpoints import Endpoint
from controller.picker.model_servers import Reading
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.plugins.parameters import UtilizationCondition

_ACTIVE: Final = "active-requests"
_REPORTED: Final[Mapping[str, Callable[[Reading], float]]] = {
    "running-requests": lambda reading: reading.running,
    "waiting-queue": lambda reading: reading.waiting,
    "kv-cache-utilization": lambda reading: reading.kv_use or 0.0,
}


@dataclass(frozen=True)
class UtilizationFilter:
    """Endpoints of which every condition holds. Where nothing fresh is known, a condition on a reading holds."""

    is_about_load: ClassVar[bool] = True

    surroundings: Surroundings
    conditions: Sequence[UtilizationCondition] = ()
    fallback_on_empty: bool = False
    """Whether all remain where otherwise none would."""

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        oldest = now - self.surroundings.staleness
        left = [
            endpoint
            for endpoint in endpoints
            if all(_value(endpoint, one.metric, oldest=oldest) <= one.max_value for one in self.conditions)
        ]
        return left or (endpoints if self.fallback_on_empty else left)


def _value(endpoint: Endpoint, metric: str, *, oldest: float) -> float:
    if metric == _ACTIVE:
        return len(endpoint.open)
    if endpoint.reading is None or endpoint.answered_at < oldest:
        return 0.0
    return _REPORTED[metric](endpoint.reading)
