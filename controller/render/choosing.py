"""Which maps choose for which places.

Few choices are tried one after the other, by one map of expressions. Where places that ask for the same things have
many between them, their cases are taken in steps: cases in a row with the same mask are looked up, others are tried,
and what a step does not have goes on to the next one. A request costs the same whatever the number of rules beside its
own.

Each map costs nginx about a millisecond when it loads a configuration, whatever is in it, so places share maps: those
that take the same steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from controller.ir.types import Case
from controller.render.lookups import Exact, LookupMap, Mask, exacts_of, lookup_map, mask_of
from controller.render.maps import NO_CHOICE, Columns, Place, RuleMap, columns_of, digest, rule_map

_FEW_CHOICES: Final = 32
"""That are tried one after the other without a look-up, in 0.1 to 0.4 us each."""
_FEW_PLACES: Final = 16
"""That share a map of expressions whatever their number."""
_MOST_MAPS: Final = 48
"""Maps of expressions among which the places of one kind are divided, at about a millisecond each."""
_MOST_STEPS: Final = 8
"""Of a place. Cases behind them are tried."""

_Steps = tuple[Mask | None, ...]
"""None: expressions."""


@dataclass(frozen=True)
class RuleMaps:
    """All maps of a configuration."""

    maps: tuple[RuleMap, ...]
    lookups: tuple[LookupMap, ...]
    exacts: tuple[Exact, ...]
    """What the keys of the look-ups are made of."""
    variables: Mapping[str, str]
    """Variable of the map that is asked first, by the id of a place."""


def rule_maps(places: Iterable[Place]) -> RuleMaps:
    """Maps for places."""
    alike: dict[Columns, dict[str, Place]] = {}
    for place in places:
        alike.setdefault(columns_of(place.cases), {})[place.id] = place
    made = _Made()
    for columns, group in alike.items():
        members = [group[name] for name in sorted(group)]
        if sum(len(place.cases) for place in members) <= _FEW_CHOICES:
            made.try_all(members)
        else:
            made.look_up(members, columns=columns)
    return RuleMaps(
        maps=tuple(sorted(made.maps, key=lambda item: item.variable)),
        lookups=tuple(sorted(made.lookups, key=lambda item: item.variable)),
        exacts=exacts_of(made.masks),
        variables=made.variables,
    )


class _Made:
    """The maps that were made so far."""

    def __init__(self) -> None:
        self.maps: list[RuleMap] = []
        self.lookups: list[LookupMap] = []
        self.masks: set[Mask] = set()
        self.variables: dict[str, str] = {}

    def try_all(self, places: Sequence[Place]) -> None:
        variable = f"$rule_{digest(places[0].id)}"
        self.maps.append(rule_map(places, variable=variable))
        self.variables.update((place.id, variable) for place in places)

    def look_up(self, places: Iterable[Place], *, columns: Columns) -> None:
        """Places that take the same steps share the maps of these. Others, with other columns, may take them too."""
        kinds: dict[_Steps, list[tuple[Place, tuple[Place, ...]]]] = {}
        for place in places:
            runs = _runs(place.cases)
            parts = tuple(replace(place, cases=cases) for _, cases in runs)
            kinds.setdefault(tuple(mask for mask, _ in runs), []).append((place, parts))
        for steps, members in kinds.items():
            tries = any(mask is None or mask.parameter for mask in steps)
            for number, part in _divided(members, tries=tries):
                name = repr((columns, steps, number))
                self._chain(steps, [parts for _, parts in part], name=name)
                self.variables.update((place.id, _variable(name, 0)) for place, _ in part)

    def _chain(self, steps: _Steps, places: Sequence[tuple[Place, ...]], *, name: str) -> None:
        """places: what each has for each step."""
        for number, mask in enumerate(steps):
            default = _variable(name, number + 1) if number + 1 < len(steps) else NO_CHOICE
            variable = _variable(name, number)
            here = [parts[number] for parts in places]
            if mask is None:
                self.maps.append(rule_map(here, variable=variable, default=default))
                continue
            odd = _variable(name, number, "odd") if mask.parameter else ""
            self.masks.add(mask)
            self.lookups.append(lookup_map(mask, here, variable=variable, default=default, odd=odd))
            if odd:
                self.maps.append(rule_map(here, variable=odd, default=default))


def _runs(cases: Sequence[Case]) -> list[tuple[Mask | None, tuple[Case, ...]]]:
    """Cases in a row that are looked up alike, in order."""
    masked = [(mask_of(case.match), case) for case in cases]
    found = [(mask, tuple(case for _, case in run)) for mask, run in groupby(masked, key=lambda item: item[0])]
    if len(found) <= _MOST_STEPS:
        return found
    kept, rest = found[: _MOST_STEPS - 1], found[_MOST_STEPS - 1 :]
    return [*kept, (None, tuple(case for _, run in rest for case in run))]


def _variable(name: str, step: int, suffix: str = "") -> str:
    return f"$rule_{digest(f'{name}{step}{suffix}')}"


def _divided(
    members: Sequence[tuple[Place, tuple[Place, ...]]], *, tries: bool
) -> Iterable[tuple[int, Sequence[tuple[Place, tuple[Place, ...]]]]]:
    """Members, divided by their ids where expressions are tried, so that one more or less changes one part."""
    count = min(_MOST_MAPS, -(-len(members) // _FEW_PLACES)) if tries else 1
    parts: dict[int, list[tuple[Place, tuple[Place, ...]]]] = {}
    for member in members:
        parts.setdefault(int(member[0].id, 16) % count, []).append(member)
    return sorted(parts.items())
