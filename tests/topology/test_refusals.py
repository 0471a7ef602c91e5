"""What is left when nginx refused something."""

import pytest

from controller.ir.streams import Opening
from controller.ir.types import Backend, Case, Match, PathKind, PathMatch, Rule, ToPool, ToStatus, ValueMatch
from controller.resources.meta import Key
from controller.topology.refusals import Refusals, without
from controller.topology.types import GatewayState, ListenerState, RouteState, Topology

ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "demo", "route")
GATEWAY = Key("gateway.networking.k8s.io", "Gateway", "demo", "edge")
PLAIN = Match(PathMatch(PathKind.PREFIX, "/a"))
EXPRESSIONS = (
    Match(PathMatch(PathKind.REGEX, "/a")),
    Match(PLAIN.path, headers=(ValueMatch("x", "y", is_regex=True),)),
    Match(PLAIN.path, query=(ValueMatch("x", "y", is_regex=True),)),
)


def _topology(*matches: Match) -> Topology:
    rule = Rule(ROUTE, 0, "", filters=(), backends=(Backend(ToPool("demo/gpu"), 1),))
    cases = tuple(Case(match, rule) for match in matches)
    listeners = tuple(
        ListenerState(GATEWAY, name, port, "HTTP", None, (), (), (), 0, serves=True)
        for name, port in (("a", 80), ("b", 81))
    )
    return Topology(
        classes=(),
        gateways=(GatewayState(GATEWAY, 1, listeners, (), serves=True),),
        routes=(RouteState(ROUTE, 1, (), ("*",), cases, "0"),),
        pools=(),
        upstreams=(),
    )


def test_refused_route_answers_500() -> None:
    (route,) = without(_topology(PLAIN), Refusals({ROUTE: "no"}, {}, {})).routes
    target = route.cases[0].rule.backends[0].target
    assert isinstance(target, ToStatus)
    assert target.status == 500


@pytest.mark.parametrize("match", EXPRESSIONS)
def test_expressions_of_a_refused_route_are_taken_out(match: Match) -> None:
    (route,) = without(_topology(match, PLAIN), Refusals({ROUTE: "no"}, {}, {})).routes
    assert [case.match for case in route.cases] == [PLAIN]


def test_route_that_is_not_refused_stays() -> None:
    before = _topology(PLAIN, *EXPRESSIONS)
    assert without(before, Refusals({GATEWAY: "no"}, {}, {})).routes == before.routes


@pytest.mark.parametrize("refusals", [Refusals({}, {(GATEWAY, "b"): "no"}, {}), Refusals({}, {}, {Opening(81): "no"})])
def test_refused_listener_serves_nothing(refusals: Refusals) -> None:
    (gateway,) = without(_topology(PLAIN), refusals).gateways
    assert {listener.name: listener.serves for listener in gateway.listeners} == {"a": True, "b": False}
