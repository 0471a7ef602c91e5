"""HTTPRoutes and GRPCRoutes that claim one hostname on one listener: the oldest route keeps it.

The others are not accepted there. A route that no listener accepts through a parentRef says so for that parentRef.

Source: Gateway API, GRPCRouteSpec.hostnames.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from controller.ir.hostnames import covering
from controller.resources.meta import Key
from controller.topology.conditions import ACCEPTED, accepted, ordered, refused
from controller.topology.types import ParentState, RouteState

_Place = tuple[Key, str]
"""Owner and name of a listener."""


@dataclass
class _Claims:
    """Hostnames that routes of one kind have on a listener, with the route."""

    exact: dict[str, Key] = field(default_factory=dict)
    below: dict[str, Key] = field(default_factory=dict)
    """Every pattern that covers one of them."""

    def claim(self, hostnames: Iterable[str], *, route: Key) -> None:
        for hostname in hostnames:
            self.exact.setdefault(hostname, route)
            for pattern in covering(hostname):
                self.below.setdefault(pattern, route)

    def holder(self, hostname: str) -> Key | None:
        """A route whose hosts are in part those of a hostname."""
        if hostname in self.below:
            return self.below[hostname]
        return next((self.exact[pattern] for pattern in covering(hostname) if pattern in self.exact), None)


Extra = TypeVar("Extra")


def without_conflicts(routes: Sequence[tuple[RouteState, Extra]]) -> list[tuple[RouteState, Extra]]:
    """The routes, in their order, each without the listeners where a route of another kind was first."""
    if len({route.key.kind for route, _ in routes}) < 2:
        return list(routes)
    claims: dict[_Place, dict[str, _Claims]] = {}
    settled: dict[Key, RouteState] = {}
    for route in sorted((route for route, _ in routes), key=_turn):
        parents = tuple(_settled(parent, route=route.key, claims=claims) for parent in route.parents)
        settled[route.key] = route if parents == route.parents else replace(route, parents=parents)
    return [(settled[route.key], extra) for route, extra in routes]


def _turn(route: RouteState) -> tuple[bool, str, str]:
    """Routes that no parent accepts take nothing from others, and come last."""
    return (not any(_is_accepted(parent) for parent in route.parents), route.created, route.key.kind)


def _settled(parent: ParentState, *, route: Key, claims: dict[_Place, dict[str, _Claims]]) -> ParentState:
    kept: list[tuple[str, tuple[str, ...]]] = []
    lost: list[str] = []
    for listener, hostnames in parent.listeners:
        here = claims.setdefault((parent.owner, listener), {})
        found = _first_holder(hostnames, claims=here, kind=route.kind)
        if found is None:
            kept.append((listener, hostnames))
            if _is_accepted(parent):
                here.setdefault(route.kind, _Claims()).claim(hostnames, route=route)
        else:
            lost.append(f"hostname {found[0]} on listener {listener} belongs to {found[1]}, which is older")
    if not lost:
        return parent
    if not _is_accepted(parent):
        return replace(parent, listeners=tuple(kept))
    verdict = accepted("; ".join(lost)) if kept else refused("HostnameConflict", "; ".join(lost))
    others = (item for item in parent.conditions if item.type != ACCEPTED)
    return replace(parent, listeners=tuple(kept), conditions=ordered(*others, verdict))


def _first_holder(hostnames: Iterable[str], *, claims: dict[str, _Claims], kind: str) -> tuple[str, Key] | None:
    for hostname in hostnames:
        for other, claimed in claims.items():
            holder = claimed.holder(hostname) if other != kind else None
            if holder is not None:
                return hostname, holder
    return None


def _is_accepted(parent: ParentState) -> bool:
    return any(item.type == ACCEPTED and item.status is True for item in parent.conditions)
