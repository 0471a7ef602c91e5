"""What a Gateway says of the certificates of its clients."""

from collections.abc import Callable
from textwrap import indent

import pytest

from controller.topology.types import Condition, ListenerState, Topology
from tests.nginx.certificates import Authority, certificate

Build = Callable[..., Topology]

ONE, TWO = Authority("one").chain, Authority("two").chain


def _map(name: str, text: bytes, *, namespace: str = "shop", field: str = "ca.crt") -> str:
    body = indent(text.decode(), "    ")
    return f"kind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  {field}: |\n{body}"


def _reference(name: str, *, kind: str = "ConfigMap", more: str = "") -> str:
    return f'{{group: "", kind: {kind}, name: {name}{more}}}'


def _validation(*references: str, mode: str = "AllowValidOnly") -> str:
    return f"{{validation: {{mode: {mode}, caCertificateRefs: [{', '.join(references)}]}}}}"


def _gateway(default: str, *ports: tuple[int, str]) -> str:
    per_port = ", ".join(f"{{port: {port}, tls: {said}}}" for port, said in ports)
    return f"""
    kind: Gateway
    metadata: {{name: web}}
    spec:
      gatewayClassName: infergate
      allowedListeners: {{namespaces: {{from: Same}}}}
      tls: {{frontend: {{default: {default}, perPort: [{per_port}]}}}}
      listeners:
      - {{name: plain, port: 80, protocol: HTTP}}
      - {{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}
      - {{name: b, port: 8443, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}
    """


def _secret() -> str:
    chain, key = (indent(text.decode(), "    ") for text in certificate("a.example"))
    head = "kind: Secret\nmetadata: {name: own}\ntype: kubernetes.io/tls\nstringData:\n"
    return f"{head}  tls.crt: |\n{chain}\n  tls.key: |\n{key}"


SECRET = _secret()


def _listeners(topology: Topology) -> dict[str, ListenerState]:
    return {item.name: item for item in topology.gateways[0].listeners}


def _verdict(conditions: tuple[Condition, ...], type_: str) -> str | None:
    return next((f"{item.status}/{item.reason}" for item in conditions if item.type == type_), None)


def test_port_has_what_is_said_of_it_or_what_is_said_of_all(build_all: Build) -> None:
    gateway = _gateway(_validation(_reference("one")), (8443, _validation(_reference("two"))))
    listeners = _listeners(build_all(gateway, SECRET, _map("one", ONE), _map("two", TWO)))

    assert listeners["plain"].client_validation is None
    found = [listeners[name].client_validation for name in ("a", "b")]
    assert [item.authorities for item in found if item] == [ONE, TWO]
    assert all(item.is_required for item in found if item)


def test_port_of_which_nothing_is_asked_asks_for_nothing(build_all: Build) -> None:
    listeners = _listeners(build_all(_gateway(_validation(_reference("one")), (8443, "{}")), SECRET, _map("one", ONE)))

    assert listeners["a"].client_validation is not None
    assert listeners["b"].client_validation is None
    assert listeners["b"].serves


def test_certificates_of_all_references_count_once(build_all: Build) -> None:
    said = _validation(*(_reference(name) for name in ("one", "both", "two")))
    maps = (_map("one", ONE), _map("both", ONE + TWO), _map("two", TWO))
    found = _listeners(build_all(_gateway(said), SECRET, *maps))["a"].client_validation

    assert found is not None
    assert found.authorities == ONE + TWO


WRONG = [
    (_reference("missing"), "False/InvalidCACertificateRef"),
    (_reference("empty"), "False/InvalidCACertificateRef"),
    (_reference("no-pem"), "False/InvalidCACertificateRef"),
    (_reference("own", kind="Secret"), "False/InvalidCACertificateKind"),
    (_reference("one", kind="Service"), "False/InvalidCACertificateKind"),
    (_reference("one", more=", namespace: other"), "False/RefNotPermitted"),
]
MAPS = (
    _map("one", ONE),
    _map("empty", ONE, field="tls.crt"),
    _map("no-pem", b"x"),
    _map("one", ONE, namespace="other"),
)


@pytest.mark.parametrize(("reference", "resolved"), WRONG)
def test_listener_without_any_authority_is_not_served(build_all: Build, reference: str, resolved: str) -> None:
    gateway = build_all(_gateway(_validation(reference), (8443, "{}")), SECRET, *MAPS).gateways[0]
    plain, a, b = gateway.listeners

    assert _verdict(a.conditions, "ResolvedRefs") == resolved
    assert _verdict(a.conditions, "Accepted") == "False/NoValidCACertificate"
    assert [item.serves for item in (plain, a, b)] == [True, False, True]
    assert _verdict(gateway.conditions, "Accepted") == "True/ListenersNotValid"


@pytest.mark.parametrize(("reference", "resolved"), WRONG)
def test_one_authority_of_two_references_is_enough(build_all: Build, reference: str, resolved: str) -> None:
    said = _validation(_reference("one"), reference)
    a = _listeners(build_all(_gateway(said), SECRET, *MAPS))["a"]

    assert _verdict(a.conditions, "ResolvedRefs") == resolved
    assert _verdict(a.conditions, "Accepted") == "True/Accepted"
    assert a.serves
    assert a.client_validation is not None
    assert a.client_validation.authorities == ONE


@pytest.mark.parametrize(
    ("kind", "resolved"), [("Gateway", "True/ResolvedRefs"), ("ListenerSet", "False/RefNotPermitted")]
)
def test_grant_is_to_the_gateway(build_all: Build, kind: str, resolved: str) -> None:
    grant = f"""
    kind: ReferenceGrant
    metadata: {{name: grant, namespace: other}}
    spec:
      from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: shop}}]
      to: [{{group: "", kind: ConfigMap}}]
    """
    said = _validation(_reference("one", more=", namespace: other"))

    assert (
        _verdict(_listeners(build_all(_gateway(said), SECRET, grant, *MAPS))["a"].conditions, "ResolvedRefs")
        == resolved
    )


def test_listener_of_a_set_asks_as_its_gateway_says(build_all: Build) -> None:
    more = """
    kind: ListenerSet
    metadata: {name: more}
    spec:
      parentRef: {name: web}
      listeners:
      - {name: set, port: 443, protocol: HTTPS, hostname: set.example, tls: {certificateRefs: [{name: own}]}}
    """
    listeners = _listeners(build_all(_gateway(_validation(_reference("one"))), SECRET, more, *MAPS))

    assert listeners["set"].client_validation == listeners["a"].client_validation is not None


@pytest.mark.parametrize(
    ("default", "port"), [("AllowInsecureFallback", "AllowValidOnly"), ("AllowValidOnly", "AllowInsecureFallback")]
)
def test_gateway_says_that_it_lets_in_clients_without_a_valid_certificate(
    build_all: Build, default: str, port: str
) -> None:
    one = _reference("one")
    topology = build_all(_gateway(_validation(one, mode=default), (8443, _validation(one, mode=port))), SECRET, *MAPS)
    listeners = _listeners(topology)

    assert _verdict(topology.gateways[0].conditions, "InsecureFrontendValidationMode") == "True/ConfigurationChanged"
    required = [item.client_validation.is_required for item in listeners.values() if item.client_validation]
    assert required == [default == "AllowValidOnly", port == "AllowValidOnly"]


def test_gateway_that_asks_for_valid_certificates_says_nothing_of_that(build_all: Build) -> None:
    topology = build_all(_gateway(_validation(_reference("one"))), SECRET, *MAPS)

    assert _verdict(topology.gateways[0].conditions, "InsecureFrontendValidationMode") is None
