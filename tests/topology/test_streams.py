"""Routes of connections: their backends, and which listeners take them."""

import json
from collections.abc import Callable

import pytest

from controller.ir.streams import StreamBackend
from controller.topology.types import Condition, StreamRouteState, Topology
from tests.nginx.certificates import Authority

Build = Callable[..., Topology]

CHAIN = Authority().chain.decode()
GATEWAY = """
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: infergate
  listeners:
  - {name: tcp, port: 5432, protocol: TCP}
  - {name: udp, port: 5432, protocol: UDP}
  - {name: passes, port: 8443, protocol: TLS, hostname: "*.example", tls: {mode: Passthrough}}
  - {name: ends, port: 8444, protocol: TLS, tls: {mode: Terminate, certificateRefs: [{name: gone}]}}
  - {name: http, port: 80, protocol: HTTP}
"""
SERVICE = """
kind: Service
metadata: {name: db}
spec:
  selector: {app: db}
  ports:
  - {name: tcp, port: 5432, targetPort: 15432, appProtocol: postgresql}
  - {name: udp, port: 5432, protocol: UDP, targetPort: 25432}
---
kind: Pod
metadata: {name: db-0, labels: {app: db}}
status: {podIP: 10.0.0.1}
"""


def _route(
    kind: str, backends: str = "{name: db, port: 5432}", *, parent: str = "{name: edge}", hosts: str | None = None
) -> str:
    named = f"hostnames: [{hosts or 'a.example'}], " if kind == "TLSRoute" else ""
    return f"""
    kind: {kind}
    metadata: {{name: route}}
    spec: {{parentRefs: [{parent}], {named}rules: [{{backendRefs: [{backends}]}}]}}
    """


def _state(topology: Topology) -> StreamRouteState:
    (route,) = topology.stream_routes
    return route


def _verdict(conditions: tuple[Condition, ...], type_: str) -> str | None:
    return next((f"{item.status}/{item.reason}" for item in conditions if item.type == type_), None)


LISTENERS = [
    ("TCPRoute", None, "{name: edge}", {"tcp": ("*",), "ends": ("*",)}),
    ("TCPRoute", None, "{name: edge, sectionName: tcp}", {"tcp": ("*",)}),
    ("TCPRoute", None, "{name: edge, port: 5432}", {"tcp": ("*",)}),
    ("UDPRoute", None, "{name: edge}", {"udp": ("*",)}),
    ("TLSRoute", "a.example", "{name: edge}", {"passes": ("a.example",), "ends": ("a.example",)}),
    ("TLSRoute", "a.other", "{name: edge}", {"ends": ("a.other",)}),
    ("TLSRoute", '"*.a.example", b.other', "{name: edge, sectionName: passes}", {"passes": ("*.a.example",)}),
]


@pytest.mark.parametrize(("kind", "hosts", "parent", "expected"), LISTENERS)
def test_route_is_attached_to_listeners_of_its_protocol(
    build_all: Build, kind: str, hosts: str | None, parent: str, expected: dict[str, tuple[str, ...]]
) -> None:
    (standing,) = _state(build_all(GATEWAY, SERVICE, _route(kind, parent=parent, hosts=hosts))).parents

    assert dict(standing.listeners) == expected
    assert _verdict(standing.conditions, "Accepted") == "True/Accepted"


REFUSED = [
    ("TCPRoute", "{name: edge, sectionName: http}", "NotAllowedByListeners"),
    ("TCPRoute", "{name: edge, sectionName: passes}", "NotAllowedByListeners"),
    ("TCPRoute", "{name: edge, sectionName: udp}", "NotAllowedByListeners"),
    ("UDPRoute", "{name: edge, sectionName: tcp}", "NotAllowedByListeners"),
    ("TLSRoute", "{name: edge, sectionName: tcp}", "NotAllowedByListeners"),
    ("TLSRoute", "{name: edge, sectionName: http}", "NotAllowedByListeners"),
    ("TLSRoute", "{name: edge, sectionName: nothing}", "NoMatchingParent"),
    ("UDPRoute", "{name: edge, port: 1}", "NoMatchingParent"),
]


@pytest.mark.parametrize(("kind", "parent", "reason"), REFUSED)
def test_listener_of_another_protocol_takes_no_route(build_all: Build, kind: str, parent: str, reason: str) -> None:
    topology = build_all(GATEWAY, SERVICE, _route(kind, parent=parent))
    (standing,) = _state(topology).parents

    assert standing.listeners == ()
    assert _verdict(standing.conditions, "Accepted") == f"False/{reason}"
    assert sum(listener.attached_routes for listener in topology.gateways[0].listeners) == 0


def test_route_has_the_endpoints_of_its_transport(build_all: Build) -> None:
    tcp = build_all(GATEWAY, SERVICE, _route("TCPRoute"))
    udp = build_all(GATEWAY, SERVICE, _route("UDPRoute"))

    assert [(item.name, item.endpoints) for item in tcp.stream_upstreams] == [("shop/db:5432", ("10.0.0.1:15432",))]
    assert [(item.name, item.endpoints) for item in udp.stream_upstreams] == [("shop/db:5432/udp", ("10.0.0.1:25432",))]


BROKEN = [
    ("{name: gone, port: 1}", "BackendNotFound"),
    ("{name: db, port: 1}", "BackendNotFound"),
    ("{name: db, namespace: other, port: 5432}", "RefNotPermitted"),
    ("{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}", "InvalidKind"),
    ("{group: example.com, kind: Thing, name: thing}", "InvalidKind"),
]


@pytest.mark.parametrize(("backend", "reason"), BROKEN)
def test_backend_that_does_not_resolve_keeps_its_share(build_all: Build, backend: str, reason: str) -> None:
    state = _state(build_all(GATEWAY, SERVICE, _route("TCPRoute", f"{{name: db, port: 5432, weight: 3}}, {backend}")))

    assert _verdict(state.parents[0].conditions, "ResolvedRefs") == f"False/{reason}"
    assert _verdict(state.parents[0].conditions, "Accepted") == "True/Accepted"
    assert state.rule.backends == (StreamBackend("shop/db:5432", 3), StreamBackend("", 1))


def test_service_of_one_transport_is_none_of_the_other(build_all: Build) -> None:
    service = SERVICE.replace("- {name: udp, port: 5432, protocol: UDP, targetPort: 25432}", "")
    state = _state(build_all(GATEWAY, service, _route("UDPRoute")))

    assert _verdict(state.parents[0].conditions, "ResolvedRefs") == "False/UnsupportedProtocol"


def test_service_without_ready_endpoints_resolves_and_has_no_upstream(build_all: Build) -> None:
    topology = build_all(GATEWAY, SERVICE.partition("---")[0], _route("TCPRoute"))

    assert _verdict(_state(topology).parents[0].conditions, "ResolvedRefs") == "True/ResolvedRefs"
    assert _state(topology).rule.backends == (StreamBackend("", 1),)
    assert topology.stream_upstreams == ()


GRANT = """
kind: ReferenceGrant
metadata: {{name: grant, namespace: other}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]
  to: [{{group: "", kind: Service}}]
"""


@pytest.mark.parametrize("kind", ["TCPRoute", "UDPRoute", "TLSRoute"])
@pytest.mark.parametrize("granted", ["TCPRoute", "UDPRoute", "TLSRoute", "HTTPRoute"])
def test_other_namespace_grants_a_kind(build_all: Build, kind: str, granted: str) -> None:
    far = SERVICE.replace("name: db}", "name: db, namespace: other}").replace(
        "name: db-0,", "name: db-0, namespace: other,"
    )
    route = _route(kind, "{name: db, namespace: other, port: 5432}")
    state = _state(build_all(GATEWAY, far, GRANT.format(kind=granted), route))

    expected = "True/ResolvedRefs" if kind == granted else "False/RefNotPermitted"
    assert _verdict(state.parents[0].conditions, "ResolvedRefs") == expected


def test_rules_behind_the_first_are_named(build_all: Build) -> None:
    route = """
    kind: TCPRoute
    apiVersion: gateway.networking.k8s.io/v1alpha2
    metadata: {name: route}
    spec:
      parentRefs: [{name: edge}]
      rules:
      - backendRefs: [{name: db, port: 5432}]
      - backendRefs: [{name: gone, port: 5432}]
    """
    (standing,) = _state(build_all(GATEWAY, SERVICE, route)).parents
    (named,) = (item for item in standing.conditions if item.type == "infergate.dev/IgnoredFields")

    assert named.message == "not supported yet and without effect: rules[1]"
    assert _verdict(standing.conditions, "ResolvedRefs") == "True/ResolvedRefs"


NAMES = [
    ("", True),
    (", subjectAltNames: [{type: Hostname, hostname: db.example}]", True),
    (", subjectAltNames: [{type: Hostname, hostname: other.example}]", False),
    (", subjectAltNames: [{type: URI, uri: 'spiffe://example/db'}]", False),
]


@pytest.mark.parametrize(("names", "is_served"), NAMES)
def test_backend_that_nginx_cannot_know_by_itself_gets_no_connection(
    build_all: Build, names: str, is_served: bool
) -> None:
    policy = f"""
    kind: BackendTLSPolicy
    metadata: {{name: db}}
    spec:
      targetRefs: [{{group: '', kind: Service, name: db}}]
      validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}], hostname: db.example{names}}}
    """
    config_map = f"kind: ConfigMap\nmetadata: {{name: ca}}\ndata: {{ca.crt: {json.dumps(CHAIN)}}}"
    topology = build_all(GATEWAY, SERVICE, _route("TLSRoute"), policy, config_map)
    state = _state(topology)
    (backend,) = state.ending.backends
    assert (backend.upstream, backend.tls is not None) == (("shop/db:5432", True) if is_served else ("", False))
    told = _verdict(state.parents[0].conditions, "ResolvedRefs")
    assert told == ("True/ResolvedRefs" if is_served else "False/UnsupportedValue")


def test_names_that_nginx_does_not_compare_are_told_where_tls_ends(build_all: Build) -> None:
    policy = f"""
    kind: BackendTLSPolicy
    metadata: {{name: db}}
    spec:
      targetRefs: [{{group: '', kind: Service, name: db}}]
      validation:
        caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]
        hostname: db.example
        subjectAltNames: [{{type: Hostname, hostname: other.example}}]
    ---
    kind: ConfigMap
    metadata: {{name: ca}}
    data: {{ca.crt: {json.dumps(CHAIN)}}}
    """
    told = {}
    for section in ("passes", "ends"):
        route = _route("TLSRoute", parent=f"{{name: edge, sectionName: {section}}}")
        (parent,) = _state(build_all(GATEWAY, SERVICE, route, policy)).parents
        told[section] = next(item for item in parent.conditions if item.type == "ResolvedRefs")
    assert (told["passes"].status, told["ends"].status) == (True, False)
    assert told["ends"].message == (
        "rules[0].backendRefs[0]: BackendTLSPolicy shop/db has subjectAltNames, "
        "for connections it accepts none but its hostname db.example"
    )
