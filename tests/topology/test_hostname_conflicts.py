"""HTTPRoutes and GRPCRoutes that want one hostname on one listener."""

from collections.abc import Callable

import pytest

from controller.topology.types import ParentState, Topology

Build = Callable[..., Topology]

GATEWAY = """
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: infergate
  listeners:
  - {name: one, port: 80, protocol: HTTP}
  - {name: two, port: 81, protocol: HTTP}
"""


def _route(kind: str, name: str, hostnames: str, *, day: int, section: str = "", rules: str = "[{}]") -> str:
    parent = f"{{name: web, sectionName: {section}}}" if section else "{name: web}"
    return f"""
    kind: {kind}
    metadata: {{name: {name}, creationTimestamp: "2026-01-{day:02}T00:00:00Z"}}
    spec: {{parentRefs: [{parent}], hostnames: {hostnames}, rules: {rules}}}
    """


def _parent(topology: Topology, name: str) -> ParentState:
    return next(route.parents[0] for route in topology.routes if route.key.name == name)


def _verdict(topology: Topology, name: str) -> str:
    (condition,) = (item for item in _parent(topology, name).conditions if item.type == "Accepted")
    return condition.reason


def _listeners(topology: Topology, name: str) -> list[str]:
    return [listener for listener, _ in _parent(topology, name).listeners]


INTERSECTIONS = [
    ("[a.example]", "[a.example]", True),
    ("[a.example]", "['*.example']", True),
    ("['*.example']", "[b.a.example]", True),
    ("[b.a.example]", "['*.example']", True),
    ("[]", "[a.example]", True),
    ("[a.example]", "[]", True),
    ("['*.a.example']", "['*.example']", True),
    ("[a.example]", "[b.example]", False),
    ("[a.example]", "['*.a.example']", False),
    ("['*.a.example']", "['*.b.example']", False),
]


@pytest.mark.parametrize("older", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize(("first", "second", "conflicts"), INTERSECTIONS)
def test_older_route_keeps_hostnames_that_intersect(
    build_all: Build, older: str, first: str, second: str, conflicts: bool
) -> None:
    newer = "GRPCRoute" if older == "HTTPRoute" else "HTTPRoute"
    topology = build_all(GATEWAY, _route(newer, "newer", second, day=2), _route(older, "older", first, day=1))

    assert _verdict(topology, "older") == "Accepted"
    assert _verdict(topology, "newer") == ("HostnameConflict" if conflicts else "Accepted")
    assert _listeners(topology, "newer") == ([] if conflicts else ["one", "two"])


def test_routes_of_one_kind_share_a_hostname(build_all: Build) -> None:
    topology = build_all(
        GATEWAY,
        *(_route("GRPCRoute", name, "[a.example]", day=day) for day, name in enumerate("abc", 1)),
        _route("HTTPRoute", "other", "[b.example]", day=4),
    )
    assert {_verdict(topology, name) for name in ("a", "b", "c", "other")} == {"Accepted"}


def test_route_stays_on_the_listener_where_nobody_was_first(build_all: Build) -> None:
    topology = build_all(
        GATEWAY,
        _route("HTTPRoute", "older", "[a.example]", day=1, section="one"),
        _route("GRPCRoute", "newer", "[a.example]", day=2),
    )

    assert _verdict(topology, "newer") == "Accepted"
    assert _listeners(topology, "newer") == ["two"]
    (message,) = (item.message for item in _parent(topology, "newer").conditions if item.type == "Accepted")
    assert message == "hostname a.example on listener one belongs to HTTPRoute shop/older, which is older"
    assert [item.attached_routes for item in topology.gateways[0].listeners] == [1, 1]


def test_route_that_is_not_accepted_keeps_no_other_out(build_all: Build) -> None:
    refused = "[{filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}]}]"
    topology = build_all(
        GATEWAY,
        _route("HTTPRoute", "older", "[a.example]", day=1, rules=refused),
        _route("GRPCRoute", "newer", "[a.example]", day=2),
    )

    assert _verdict(topology, "older") == "UnsupportedValue"
    assert _listeners(topology, "older") == []
    assert _verdict(topology, "newer") == "Accepted"
