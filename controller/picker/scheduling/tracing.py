"""A profile that notes what its parts say.

It is the profile itself with a listener around each part, so that what is told is what happened, whatever a part
remembers or draws at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Filter, Picker, Scorer
from controller.picker.scheduling.matching import matched_chunks
from controller.picker.scheduling.profile import Profile
from controller.picker.trace import Filtered, Scored, Trace


@runtime_checkable
class Itemised(Protocol):
    """A scorer that tells what its scores are made of."""

    def terms(
        self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float], *, now: float
    ) -> Sequence[Mapping[str, float]]:
        """The terms of each score that was just given, by name."""
        ...


def traced(profile: Profile, trace: Trace) -> Profile:
    """The same profile; a run of it is noted in the trace."""
    names = profile.names
    return replace(
        profile,
        filters=tuple(
            _Filter(part, name, trace, is_first=place == 0)
            for place, (part, name) in enumerate(zip(profile.filters, names.filters, strict=True))
        ),
        scorers=tuple(
            (_Scorer(part, name, weight, trace), weight)
            for (part, weight), name in zip(profile.scorers, names.scorers, strict=True)
        ),
        picker=_Picker(profile.picker, names.picker, trace),
    )


@dataclass(frozen=True)
class _Filter:
    part: Filter
    name: str
    trace: Trace
    is_first: bool

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        if self.is_first:
            self.trace.begin()
        left = self.part.filter(request, endpoints, now=now)
        self.trace.filters.append(Filtered(self.name, endpoints, left))
        return left


@dataclass(frozen=True)
class _Scorer:
    part: Scorer
    name: str
    weight: float
    trace: Trace

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        scores = self.part.score(request, endpoints, now=now)
        terms = self.part.terms(request, endpoints, scores, now=now) if isinstance(self.part, Itemised) else ()
        self.trace.scores.append(Scored(self.name, self.weight, scores, terms))
        return scores


@dataclass(frozen=True)
class _Picker:
    part: Picker
    name: str
    trace: Trace

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Sequence[Endpoint]:
        self.trace.picker = self.name
        self.trace.scored = endpoints
        self.trace.totals = scores
        self.trace.matched = matched_chunks(request, endpoints)
        return self.part.pick(request, endpoints, scores)
