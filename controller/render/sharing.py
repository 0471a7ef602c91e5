"""Rules of a server that share named locations.

nginx compares a name that a request jumps to with those of all named locations of a server, one after the other, in
0.05 to 0.3 us each, since they lie far apart. Conditions within a location lie side by side and take a tenth of that.
So where many rules are reached by name, those that need nothing but variables and an upstream of their own stand as
conditions in a few locations.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from controller.ir.types import Rule, ToPool, ToUpstream
from controller.render.maps import digest

_FEW: Final = 32
"""Rules that have locations of their own whatever they are."""
_MANY: Final = 1024


@dataclass(frozen=True)
class Sharing:
    """Which rules share a location, in every server that has them."""

    locations: Mapping[str, str]
    """By the id of a rule: the location that it shares."""


@dataclass(frozen=True)
class Plain:
    """Names of upstreams and pools to which requests go without a directive that cannot stand in a condition."""

    upstreams: Set[str]
    pools: Set[str]

    def covers(self, rule: Rule) -> bool:
        backends = [backend for backend in rule.backends if backend.weight > 0]
        if len(backends) != 1 or rule.filters or rule.timeouts or rule.retry or rule.session or rule.takes_calls:
            return False
        (backend,) = backends
        if backend.filters:
            return False
        match backend.target:
            case ToUpstream(upstream=upstream):
                return upstream in self.upstreams
            case ToPool(pool=pool, tls=tls):
                return tls is None and pool in self.pools
            case _:
                return False


def sharing_of(reached: Iterable[Sequence[Rule]], *, plain: Plain, apart: Set[str]) -> Sharing:
    """reached: by each server, the rules that it reaches by name. apart: ids of rules that keep their location."""
    groups = [[rule for rule in rules if rule.id not in apart and plain.covers(rule)] for rules in reached]
    groups = [rules for rules in groups if len(rules) > _FEW]
    # Two numbers, so that a rule more or less leaves the others where they are.
    count = 128 if max(map(len, groups), default=0) > _MANY else 16
    locations = {}
    for rule in (rule for rules in groups for rule in rules):
        # The kind, since locations that ask the picker have more directives of their own.
        kind = "pools" if isinstance(_target(rule), ToPool) else "services"
        # The number comes first, so that names differ at once.
        locations[rule.id] = f"@{int(digest(rule.id), 16) % count}/{kind}"
    return Sharing(locations)


def _target(rule: Rule) -> object:
    return next(backend.target for backend in rule.backends if backend.weight > 0)
