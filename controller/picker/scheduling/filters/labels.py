"""The filter on the labels of pods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.plugins.parameters import LabelRequirement


@dataclass(frozen=True)
class LabelSelectorFilter:
    """Endpoints whose labels match; it may leave none. Source: Kubernetes, meta/v1 LabelSelector."""

    surroundings: Surroundings
    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: Sequence[LabelRequirement] = ()

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        return [endpoint for endpoint in endpoints if self._matches(endpoint.labels)]

    def _matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(one, labels.get(one.key)) for one in self.match_expressions
        )


def _holds(requirement: LabelRequirement, value: str | None) -> bool:
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
