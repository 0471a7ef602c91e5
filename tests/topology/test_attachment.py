"""Which routes are attached to which listeners, on which hostnames."""

from collections.abc import Callable, Sequence

import pytest

from controller.topology.attachment import covers, intersect
from controller.topology.types import ParentState, Topology

Build = Callable[..., Topology]

INTERSECTIONS = [
    (None, (), ("*",)),
    (None, ("B.example", "a.example"), ("a.example", "b.example")),
    ("a.example", (), ("a.example",)),
    ("*.example", (), ("*.example",)),
    ("a.example", ("a.example",), ("a.example",)),
    ("A.Example", ("a.example",), ("a.example",)),
    ("a.example", ("*.example",), ("a.example",)),
    ("*.example", ("a.example",), ("a.example",)),
    ("*.example", ("b.a.example",), ("b.a.example",)),
    ("*.example", ("example",), ()),
    ("*.example", ("*.example",), ("*.example",)),
    ("*.example", ("*.a.example",), ("*.a.example",)),
    ("*.a.example", ("*.example",), ("*.a.example",)),
    ("*.a.example", ("*.b.example",), ()),
    ("a.example", ("b.example",), ()),
    ("*.example", ("a.example", "b.other", "*.c.example"), ("*.c.example", "a.example")),
    ("b.a.example", ("*.example", "*.a.example"), ("b.a.example",)),
    ("xexample", ("*.example",), ()),
]


@pytest.mark.parametrize(("listener", "route", "expected"), INTERSECTIONS)
def test_hostnames_intersect(listener: str | None, route: Sequence[str], expected: tuple[str, ...]) -> None:
    assert intersect(listener, route) == expected


def test_wildcard_covers_labels_and_not_its_own_domain() -> None:
    assert covers("*.example", "b.a.example")
    assert not covers("*.example", "example")
    assert covers("*", "*.example")


LISTENERS = """
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: infergate
  listeners:
  - {name: open, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: own, port: 81, protocol: HTTP}
  - name: chosen
    port: 82
    protocol: HTTP
    hostname: "*.example"
    allowedRoutes:
      namespaces:
        from: Selector
        selector:
          matchLabels: {team: blue}
          matchExpressions:
          - {key: stage, operator: In, values: [test, live]}
          - {key: frozen, operator: DoesNotExist}
  - name: named
    port: 83
    protocol: HTTP
    allowedRoutes:
      namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: far}}}
  - {name: raw, port: 84, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
"""

NAMESPACES = """
kind: Namespace
metadata: {name: blue, labels: {team: blue, stage: live}}
---
kind: Namespace
metadata: {name: ice, labels: {team: blue, stage: live, frozen: "yes"}}
"""


def _parent(build: Build, *, namespace: str, parent: str = "", hostnames: str = "") -> tuple[ParentState, Topology]:
    route = f"""
    kind: HTTPRoute
    metadata: {{name: cart, namespace: {namespace}}}
    spec:
      parentRefs: [{{name: web, namespace: shop{parent}}}]
      hostnames: [{hostnames}]
    """
    topology = build(LISTENERS, NAMESPACES, route)
    return topology.routes[0].parents[0], topology


ATTACHMENTS = [
    ("shop", "", "", ["open", "own"]),
    ("far", "", "", ["open", "named"]),
    ("blue", "", "", ["open", "chosen"]),
    ("ice", "", "", ["open"]),
    ("blue", "", "a.example", ["open", "chosen"]),
    ("blue", "", "a.other", ["open"]),
    ("shop", ", sectionName: own", "", ["own"]),
    ("shop", ", port: 80", "", ["open"]),
    ("shop", ", sectionName: own, port: 81", "", ["own"]),
    ("shop", ", sectionName: own, port: 80", "", "NoMatchingParent"),
    ("shop", ", sectionName: missing", "", "NoMatchingParent"),
    ("shop", ", port: 9", "", "NoMatchingParent"),
    ("far", ", sectionName: own", "", "NotAllowedByListeners"),
    ("shop", ", sectionName: raw", "", "NotAllowedByListeners"),
    ("blue", ", sectionName: chosen", "a.other", "NoMatchingListenerHostname"),
]


@pytest.mark.parametrize(("namespace", "parent", "hostnames", "expected"), ATTACHMENTS)
def test_route_is_attached_where_listeners_admit_it(
    build_all: Build, namespace: str, parent: str, hostnames: str, expected: list[str] | str
) -> None:
    state, _ = _parent(build_all, namespace=namespace, parent=parent, hostnames=hostnames)
    accepted, resolved = state.conditions

    if isinstance(expected, list):
        assert [name for name, _ in state.listeners] == expected
        assert accepted.status is True
    else:
        assert state.listeners == ()
        assert (accepted.status, accepted.reason) == (False, expected)
    assert resolved.status is True


def test_accepted_routes_are_counted_on_each_listener(build_all: Build) -> None:
    _, topology = _parent(build_all, namespace="blue")
    assert [item.attached_routes for item in topology.gateways[0].listeners] == [1, 0, 1, 0, 0]


def test_route_with_two_references_to_a_listener_counts_once(build_web: Build) -> None:
    route = """
    kind: HTTPRoute
    metadata: {name: cart}
    spec: {parentRefs: [{name: web}, {name: web, namespace: shop}]}
    """
    topology = build_web(route)

    assert len(topology.routes[0].parents) == 2
    assert topology.gateways[0].listeners[0].attached_routes == 1


def test_parent_is_reported_as_it_was_written(build_all: Build) -> None:
    state, _ = _parent(build_all, namespace="shop", parent=", sectionName: own, port: 81")
    assert state.parent == {
        **{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "web"},
        **{"sectionName": "own", "port": 81},
    }


OTHERS = [
    "{name: missing}",
    "{name: web, namespace: elsewhere}",
    "{name: web, kind: ListenerSet}",
    "{name: web, group: '', kind: Service}",
    "{name: foreign}",
]


@pytest.mark.parametrize("parent", OTHERS)
def test_route_without_gateway_of_ours_is_left_alone(build_web: Build, parent: str) -> None:
    foreign = """
    kind: Gateway
    metadata: {name: foreign}
    spec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}
    ---
    kind: GatewayClass
    metadata: {name: other}
    spec: {controllerName: example.com/other}
    """
    topology = build_web(foreign, f"kind: HTTPRoute\nmetadata: {{name: cart}}\nspec: {{parentRefs: [{parent}]}}")

    assert topology.routes == ()
    assert [item.key.name for item in topology.gateways] == ["web"]
    assert [item.key.name for item in topology.classes] == ["infergate"]
