"""What is left of a topology when nginx refused something of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from controller.ir.streams import Opening
from controller.ir.types import Backend, Case, PathKind, ToStatus
from controller.resources.meta import Key
from controller.topology.types import GatewayState, RouteState, Topology


@dataclass(frozen=True)
class Refusals:
    """What nginx does not take, each with nginx's own words."""

    routes: Mapping[Key, str]
    listeners: Mapping[tuple[Key, str], str]
    """By owner and name of the listener."""
    ports: Mapping[Opening, str]
    """Ports that cannot be opened."""

    def __bool__(self) -> bool:
        return bool(self.routes or self.listeners or self.ports)


def without(topology: Topology, refusals: Refusals) -> Topology:
    """The topology with all that nginx refused made harmless, and everything else as it was.

    A refused route answers 500, or closes its connections. Its matches by regular expression are taken out, since such
    an expression is what nginx refuses and nothing else can tell which requests it means: those fall to the routes that
    remain. A refused listener, or one on a port that cannot be opened, serves nothing.
    """
    return replace(
        topology,
        routes=tuple(
            _answering_500(route, refusals.routes[route.key]) if route.key in refusals.routes else route
            for route in topology.routes
        ),
        stream_routes=tuple(
            replace(route, rule=replace(route.rule, backends=()), ending=replace(route.ending, backends=()))
            if route.key in refusals.routes
            else route
            for route in topology.stream_routes
        ),
        gateways=tuple(_without_listeners(gateway, refusals) for gateway in topology.gateways),
    )


def _answering_500(route: RouteState, message: str) -> RouteState:
    backend = Backend(target=ToStatus(status=500, reason=f"nginx refused this route: {message}"), weight=1)
    cases = (
        Case(match=case.match, rule=replace(case.rule, filters=(), backends=(backend,)))
        for case in route.cases
        if not _has_expression(case)
    )
    return replace(route, cases=tuple(cases))


def _has_expression(case: Case) -> bool:
    match = case.match
    return match.path.kind is PathKind.REGEX or any(item.is_regex for item in (*match.headers, *match.query))


def _without_listeners(gateway: GatewayState, refusals: Refusals) -> GatewayState:
    listeners = tuple(
        replace(listener, serves=False)
        if listener.opening in refusals.ports or (listener.owner, listener.name) in refusals.listeners
        else listener
        for listener in gateway.listeners
    )
    return replace(gateway, listeners=listeners)
