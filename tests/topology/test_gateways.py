"""Conditions of GatewayClasses, Gateways and listeners."""

from collections.abc import Callable

import pytest

from controller.resources.gateway_api import CONTROLLER_NAME, Gateway
from controller.resources.snapshot import Snapshot, snapshot
from controller.topology.build import build
from controller.topology.types import Condition, ListenerState, Topology

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]


def _gateway(listeners: str, *, more: str = "") -> str:
    return f"""
    kind: Gateway
    metadata: {{name: web, generation: 3}}
    spec:
      gatewayClassName: infergate
      listeners: [{listeners}]
      {more}
    """


def _listeners(topology: Topology) -> dict[str, ListenerState]:
    return {item.name: item for item in topology.gateways[0].listeners}


def _verdict(conditions: tuple[Condition, ...], type_: str) -> str | None:
    return next((f"{item.status}/{item.reason}" for item in conditions if item.type == type_), None)


HTTP = "{name: http, port: 80, protocol: HTTP}"
SCTP = "{name: sctp, port: 81, protocol: SCTP}"


def test_sound_gateway_is_accepted_and_serves(build_web: Build) -> None:
    gateway = build_web().gateways[0]

    assert [(item.type, item.status, item.reason) for item in gateway.conditions] == [
        ("Accepted", True, "Accepted"),
        ("ResolvedRefs", True, "ResolvedRefs"),
    ]
    assert [(item.type, item.status, item.reason) for item in gateway.listeners[0].conditions] == [
        ("Accepted", True, "Accepted"),
        ("Conflicted", False, "NoConflicts"),
        ("ResolvedRefs", True, "ResolvedRefs"),
    ]
    assert gateway.serves
    assert gateway.listeners[0].serves


def test_generation_is_that_of_the_resource(build_all: Build) -> None:
    assert build_all(_gateway(HTTP)).gateways[0].generation == 3


def test_listeners_without_exception_invalid_refuse_the_gateway(build_all: Build) -> None:
    gateway = build_all(_gateway(SCTP)).gateways[0]

    assert _verdict(gateway.conditions, "Accepted") == "False/ListenersNotValid"
    assert not gateway.serves
    assert not gateway.would_serve


def test_one_valid_listener_keeps_the_gateway(build_all: Build) -> None:
    gateway = build_all(_gateway(f"{HTTP}, {SCTP}")).gateways[0]

    assert _verdict(gateway.conditions, "Accepted") == "True/ListenersNotValid"
    assert gateway.serves


@pytest.mark.parametrize("protocol", ["SCTP", "INVALID", "example.com/own"])
def test_unsupported_protocol_supports_no_kinds(build_all: Build, protocol: str) -> None:
    listener = build_all(_gateway(f"{{name: a, port: 81, protocol: {protocol}}}")).gateways[0].listeners[0]

    assert _verdict(listener.conditions, "Accepted") == "False/UnsupportedProtocol"
    assert listener.supported_kinds == ()
    assert not listener.serves


KINDS = [
    ("[{kind: HTTPRoute}]", "True/ResolvedRefs", ["HTTPRoute"]),
    ("[{kind: TCPRoute}]", "False/InvalidRouteKinds", []),
    ("[{kind: HTTPRoute}, {kind: TCPRoute}]", "False/InvalidRouteKinds", ["HTTPRoute"]),
    ("[{kind: HTTPRoute, group: example.com}]", "False/InvalidRouteKinds", []),
    ("[{kind: GRPCRoute}]", "True/ResolvedRefs", ["GRPCRoute"]),
    ("[]", "True/ResolvedRefs", ["HTTPRoute", "GRPCRoute"]),
]


@pytest.mark.parametrize(("kinds", "resolved", "supported"), KINDS)
def test_only_supported_kinds_are_allowed(build_all: Build, kinds: str, resolved: str, supported: list[str]) -> None:
    topology = build_all(_gateway(f"{{name: a, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {kinds}}}}}"))
    listener = topology.gateways[0].listeners[0]

    assert _verdict(listener.conditions, "ResolvedRefs") == resolved
    assert [kind for _, kind in listener.supported_kinds] == supported
    assert listener.serves is bool(supported)


def test_listeners_of_two_protocols_on_a_port_conflict(build_all: Build) -> None:
    both = (
        "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTPS}, {name: c, port: 81, protocol: HTTP}"
    )
    found = _listeners(build_all(_gateway(both)))

    for name in ("a", "b"):
        assert _verdict(found[name].conditions, "Conflicted") == "True/ProtocolConflict"
        assert _verdict(found[name].conditions, "Accepted") == "False/ProtocolConflict"
        assert not found[name].serves
    assert _verdict(found["c"].conditions, "Conflicted") == "False/NoConflicts"
    assert found["c"].serves


PASSES = "protocol: TLS, tls: {mode: Passthrough}"
PAIRS = [
    ("protocol: HTTPS, hostname: a.example", f"{PASSES}, hostname: b.example", None),
    ("protocol: HTTPS, hostname: a.example", f"{PASSES}, hostname: a.example", "HostnameConflict"),
    ("protocol: HTTPS", f"{PASSES}, hostname: a.example", None),
    ("protocol: TCP", f"{PASSES}, hostname: a.example", "ProtocolConflict"),
    ("protocol: TCP", "protocol: HTTP", "ProtocolConflict"),
    ("protocol: TCP", "protocol: UDP", None),
    ("protocol: UDP", "protocol: HTTP", None),
    ("protocol: HTTP", f"{PASSES}, hostname: a.example", "ProtocolConflict"),
]


@pytest.mark.parametrize(("first", "second", "reason"), PAIRS)
def test_protocols_share_a_port_where_a_client_tells_them_apart(
    build_all: Build, first: str, second: str, reason: str | None
) -> None:
    found = _listeners(build_all(_gateway(f"{{name: a, port: 80, {first}}}, {{name: b, port: 80, {second}}}")))

    for listener in found.values():
        assert _verdict(listener.conditions, "Conflicted") == (f"True/{reason}" if reason else "False/NoConflicts")
        assert _verdict(listener.conditions, "Accepted") == (f"False/{reason}" if reason else "True/Accepted")


PROTOCOLS = [
    ("protocol: TCP", ["TCPRoute"]),
    ("protocol: UDP", ["UDPRoute"]),
    (PASSES, ["TLSRoute"]),
    ("protocol: TLS, tls: {certificateRefs: [{name: gone}]}", ["TLSRoute", "TCPRoute"]),
]


@pytest.mark.parametrize(("protocol", "kinds"), PROTOCOLS)
def test_protocol_has_its_kinds_of_routes(build_all: Build, protocol: str, kinds: list[str]) -> None:
    (listener,) = build_all(_gateway(f"{{name: a, port: 80, {protocol}}}")).gateways[0].listeners

    assert [kind for _, kind in listener.supported_kinds] == kinds
    assert listener.serves is ("gone" not in protocol)


def test_unsupported_protocol_conflicts_with_nothing(build_all: Build) -> None:
    found = _listeners(build_all(_gateway(f"{HTTP}, {{name: sctp, port: 80, protocol: SCTP}}")))

    assert found["http"].serves
    assert _verdict(found["sctp"].conditions, "Conflicted") == "False/NoConflicts"


PROBLEMS = [
    ("infrastructure: {parametersRef: {group: example.com, kind: P, name: p}}", "False/InvalidParameters"),
    ("addresses: [{type: Hostname, value: a.example}]", "False/UnsupportedAddress"),
    ("addresses: [{type: test/fake, value: a}]", "False/UnsupportedAddress"),
    ("addresses: [{value: 224.0.0.1}]", "False/UnsupportedAddress"),
    ("addresses: [{value: 10.0.0.1}, {type: IPAddress}]", "True/Accepted"),
]


@pytest.mark.parametrize(("more", "accepted"), PROBLEMS)
def test_what_a_whole_gateway_cannot_have_refuses_it(build_all: Build, more: str, accepted: str) -> None:
    gateway = build_all(_gateway(HTTP, more=more)).gateways[0]

    assert _verdict(gateway.conditions, "Accepted") == accepted
    assert gateway.serves is accepted.startswith("True")
    assert gateway.listeners[0].serves is gateway.serves
    assert bool(gateway.would_serve) is not gateway.serves


def test_requested_addresses_are_kept_in_order(build_all: Build) -> None:
    more = "addresses: [{value: 10.0.0.2}, {type: IPAddress}, {value: 10.0.0.1}]"
    assert build_all(_gateway(HTTP, more=more)).gateways[0].addresses == ("10.0.0.2", "10.0.0.1")


IGNORED = [
    ("defaultScope: All", "defaultScope"),
]


@pytest.mark.parametrize(("more", "field"), IGNORED)
def test_field_that_adds_something_is_named_and_the_gateway_serves(build_all: Build, more: str, field: str) -> None:
    gateway = build_all(_gateway(HTTP, more=more)).gateways[0]
    condition = next(item for item in gateway.conditions if item.type == "infergate.dev/IgnoredFields")

    assert condition.message.endswith(f"without effect: {field}")
    assert gateway.serves


@pytest.mark.parametrize("more", ["defaultScope: None", "allowedListeners: {}", "infrastructure: {}"])
def test_field_that_asks_for_nothing_is_not_named(build_all: Build, more: str) -> None:
    gateway = build_all(_gateway(HTTP, more=more)).gateways[0]
    assert _verdict(gateway.conditions, "infergate.dev/IgnoredFields") is None


def test_class_with_parameters_is_refused_with_its_gateways(build_web: Build) -> None:
    parameters = """
    kind: GatewayClass
    metadata: {name: infergate}
    spec:
      controllerName: infergate.dev/gateway-controller
      parametersRef: {group: infergate.dev, kind: GatewayParameters, name: p, namespace: shop}
    """
    topology = build_web(parameters)

    assert _verdict(topology.classes[0].conditions, "Accepted") == "False/InvalidParameters"
    assert _verdict(topology.gateways[0].conditions, "Accepted") == "False/InvalidParameters"


def test_class_without_parameters_is_accepted(build_web: Build) -> None:
    assert _verdict(build_web().classes[0].conditions, "Accepted") == "True/Accepted"


def test_listeners_with_one_hostname_on_a_port_conflict(read: Read) -> None:
    """The models refuse them, as the API server does, so that they are made by hand."""
    everything = read(_gateway("{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}"))
    (gateway,) = everything.of(Gateway)
    listeners = tuple(item.model_copy(update={"port": 80}) for item in gateway.spec.listeners)
    changed = gateway.model_copy(update={"spec": gateway.spec.model_copy(update={"listeners": listeners})})
    others = (item for item in everything.resources if item is not gateway)
    found = _listeners(build(snapshot([*others, changed]), controller_name=CONTROLLER_NAME))

    assert {_verdict(item.conditions, "Conflicted") for item in found.values()} == {"True/HostnameConflict"}
    assert {_verdict(item.conditions, "Accepted") for item in found.values()} == {"False/HostnameConflict"}
