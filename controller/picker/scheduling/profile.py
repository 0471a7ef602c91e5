"""A scheduling profile: filters in sequence, the weighted sum of the scores, a picker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Filter, LoadFilter, Picker, Scorer, Surroundings, Witness
from controller.picker.scheduling.foreign import ForeignScorer
from controller.picker.scheduling.registry import PLUGINS, Kind, PluginType

HEALTHY: Final = "healthy-filter"
DEFAULT_SCORER: Final = "expected-time-scorer"
DEFAULT_PICKER: Final = "max-score-picker"


class InvalidProfile(Exception):
    """A profile names what there is not."""


@dataclass(frozen=True)
class PluginSpec:
    """A plugin as a policy asks for it."""

    type: str
    name: str = ""
    """By which the profile names it; empty: its type."""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # Any: each has a type of its own
    build: Callable[[Surroundings], Any] | None = None  # Any: a filter, scorer or picker
    """Makes a plugin that the registry does not have; None for one that it has."""


@dataclass(frozen=True)
class PartNames:
    """By which a policy names the parts of its profile, in their order."""

    filters: tuple[str, ...]
    scorers: tuple[str, ...]
    picker: str


@dataclass(frozen=True)
class Profile:
    """How endpoints are chosen."""

    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    """Each with its weight."""
    picker: Picker
    names: PartNames
    witnesses: tuple[Witness, ...] = ()

    def run(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """The endpoint for a request, and where it goes next if that one fails; none when the filters leave none."""
        for part in self.filters:
            endpoints = part.filter(request, endpoints, now=now)
            if not endpoints:
                return ()
        if len(endpoints) == 1:
            return endpoints
        if len(self.scorers) == 1 and self.scorers[0][1] == 1.0:
            # As in the default profile: nothing has to be summed.
            scores = self.scorers[0][0].score(request, endpoints, now=now)
            chosen = self.picker.pick(request, endpoints, scores)
            request.scores = (self.names.scorers, (scores[endpoints.index(chosen[0])],))
            return chosen
        told: list[Sequence[float]] = []
        totals = self.score(request, endpoints, now=now, told=told)
        chosen = self.picker.pick(request, endpoints, totals)
        place = endpoints.index(chosen[0])
        request.scores = (self.names.scorers, tuple([scores[place] for scores in told]))
        return chosen

    def is_busy(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> bool:
        """Whether it is for the load of the endpoints that the filters leave none of them."""
        for part in self.filters:
            endpoints = part.filter(request, endpoints, now=now)
            if not endpoints:
                return isinstance(part, LoadFilter) and part.is_about_load
        return False

    def run_preferring(
        self, preferred: Sequence[Endpoint], request: PickRequest, endpoints: Sequence[Endpoint], *, now: float
    ) -> Sequence[Endpoint]:
        """The preferred endpoints that are among the others and pass the filters, in their order."""
        for part in self.filters:
            endpoints = part.filter(request, endpoints, now=now) if endpoints else ()
        return [endpoint for endpoint in preferred if endpoint in endpoints]

    def score(
        self,
        request: PickRequest,
        endpoints: Sequence[Endpoint],
        *,
        now: float,
        told: list[Sequence[float]] | None = None,
    ) -> Sequence[float]:
        """The weighted sum of the scores of each endpoint. `told` is given what each scorer says, in their order."""
        total: Sequence[float] = ()
        for scorer, weight in self.scorers:
            scores = scorer.score(request, endpoints, now=now)
            if told is not None:
                told.append(scores)
            if weight != 1.0:
                scores = [weight * score for score in scores]
            total = [a + b for a, b in zip(total, scores, strict=True)] if total else scores
        return total or [0.0] * len(endpoints)


def build_profile(
    plugins: Sequence[PluginSpec], profile: Sequence[tuple[str, float]], surroundings: Surroundings
) -> Profile:
    """A profile of plugins, which it names with their weights; a weight counts for scorers only.

    Failing endpoints are always left out first. Without a picker it is the default one, without a scorer the default
    rule. Raises InvalidProfile for a name, a type or a parameter that there is not, and for a second picker.
    """
    specs = {spec.name or spec.type: spec for spec in plugins}
    parts: list[_Part] = []
    for name, weight in profile:
        if name not in specs:
            raise InvalidProfile(f"plugin {name}: not among the plugins {', '.join(sorted(specs)) or '(none)'}")
        parts.append(_part(specs[name], surroundings, weight=weight))
    used = frozenset(kind for part in parts for kind in part.type.kinds)
    if not any(part.type.name == HEALTHY for part in parts):
        parts.insert(0, _part(PluginSpec(HEALTHY), surroundings))
    if Kind.SCORER not in used:
        parts.append(_part(PluginSpec(DEFAULT_SCORER), surroundings))
    if Kind.PICKER not in used:
        parts.append(_part(PluginSpec(DEFAULT_PICKER), surroundings))
    filters, scorers, pickers = (
        [part for part in parts if kind in part.type.kinds] for kind in (Kind.FILTER, Kind.SCORER, Kind.PICKER)
    )
    if len(pickers) > 1:
        raise InvalidProfile("profile: more than one picker")
    return Profile(
        filters=tuple(part.made for part in filters),
        scorers=tuple((_scorer(part), part.weight) for part in scorers),
        picker=pickers[0].made,
        names=PartNames(
            filters=tuple(part.name for part in filters),
            scorers=tuple(part.name for part in scorers),
            picker=pickers[0].name,
        ),
        witnesses=tuple(part.made for part in parts if hasattr(part.made, "sent")),
    )


def default_profile(surroundings: Surroundings) -> Profile:
    """The profile of a pool that asks for none: the default rule among healthy endpoints."""
    return build_profile((), (), surroundings)


@dataclass(frozen=True)
class _Part:
    type: PluginType
    name: str
    made: Any  # Any: a filter, scorer or picker
    weight: float
    is_foreign: bool


def _part(spec: PluginSpec, surroundings: Surroundings, *, weight: float = 1.0) -> _Part:
    type_, made = _make(spec, surroundings)
    return _Part(type_, spec.name or spec.type, made, float(weight), is_foreign=spec.build is not None)


def _scorer(part: _Part) -> Scorer:
    return ForeignScorer(part.made, part.type.name) if part.is_foreign else part.made


def _make(spec: PluginSpec, surroundings: Surroundings) -> tuple[PluginType, Any]:  # Any: as above
    if spec.build is not None:
        try:
            part = spec.build(surroundings)
        except Exception as error:  # code of others, which may fail in any way
            raise InvalidProfile(f"plugin {spec.type}: {type(error).__name__}: {error}") from error
        return PluginType(spec.type, type(part)), part
    made = PLUGINS.get(spec.type)
    if made is None:
        raise InvalidProfile(f"plugin type {spec.type}: unknown, there are {', '.join(sorted(PLUGINS))}")
    known = {parameter.name for parameter in made.parameters}
    for name in spec.parameters:
        if name not in known:
            raise InvalidProfile(f"parameter {name} of {spec.type}: unknown, there are {', '.join(sorted(known))}")
    try:
        return made, made.make(surroundings, **spec.parameters)
    except (TypeError, ValueError) as error:
        raise InvalidProfile(f"plugin {spec.type}: {error}") from error
