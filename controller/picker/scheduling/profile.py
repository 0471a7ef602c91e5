"""A scheduling profile: filters in sequence, the weighted sum of the scores, a picker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Filter, Picker, Scorer, Surroundings
from controller.picker.scheduling.registry import FILTERS, PICKERS, SCORERS

DEFAULT_FILTERS: Final = ("healthy-filter",)
DEFAULT_SCORERS: Final = (("expected-wait-scorer", 1.0),)
DEFAULT_PICKER: Final = "max-score-picker"


@dataclass(frozen=True)
class Profile:
    """How an endpoint is chosen."""

    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    """Each with its weight."""
    picker: Picker

    def run(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Endpoint:
        """The endpoint for a request, of at least one."""
        for part in self.filters:
            endpoints = part.filter(request, endpoints, now=now)
        if len(endpoints) == 1:
            return endpoints[0]
        return self.picker.pick(request, endpoints, self.score(request, endpoints, now=now))

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """The weighted sum of the scores of each endpoint."""
        total: Sequence[float] = ()
        for scorer, weight in self.scorers:
            scores = scorer.score(request, endpoints, now=now)
            if weight != 1.0:
                scores = [weight * score for score in scores]
            total = [a + b for a, b in zip(total, scores, strict=True)] if total else scores
        return total or [0.0] * len(endpoints)


def default_profile(surroundings: Surroundings) -> Profile:
    """The profile of a pool that asks for none: least expected wait among healthy endpoints."""
    return Profile(
        filters=tuple(FILTERS[name](surroundings) for name in DEFAULT_FILTERS),
        scorers=tuple((SCORERS[name](surroundings), weight) for name, weight in DEFAULT_SCORERS),
        picker=PICKERS[DEFAULT_PICKER](surroundings),
    )
