"""The table of features against what the code says of a route that uses them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.provider.file import read
from controller.reconcile import topology_of
from controller.resources.gateway_api import CONTROLLER_NAME, GatewayClass
from controller.status.derive import derive
from controller.status.features import FEATURES, IN_CLUSTER, features_without
from controller.status.rows import worst_first
from controller.status.types import Severity
from tests.nginx.certificates import Authority, certificate
from tests.nginx.resources import secret

Json = dict[str, Any]  # a piece of a resource

TO_CART: Json = {"backendRefs": [{"name": "cart", "port": 80}]}


def _filtered(type_: str, **fields: Any) -> Json:  # Any: fields of a filter
    name = type_[:1].lower() + type_[1:] if type_ != "URLRewrite" else "urlRewrite"
    return {"filters": [{"type": type_, name: fields}]}


def _mirror(**share: int) -> Json:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "cart", "port": 80}, **share}}


RULES: dict[str, Json] = {
    "HTTPRoute303RedirectStatusCode": _filtered("RequestRedirect", statusCode=303),
    "HTTPRoute307RedirectStatusCode": _filtered("RequestRedirect", statusCode=307),
    "HTTPRoute308RedirectStatusCode": _filtered("RequestRedirect", statusCode=308),
    "HTTPRouteBackendRequestHeaderModification": {
        "backendRefs": [
            {"name": "cart", "port": 80, **_filtered("RequestHeaderModifier", set=[{"name": "a", "value": "b"}])}
        ]
    },
    "HTTPRouteBackendTimeout": {**TO_CART, "timeouts": {"backendRequest": "1s"}},
    "HTTPRouteCORS": {**TO_CART, "filters": [{"type": "CORS", "cors": {"allowOrigins": ["https://a.example"]}}]},
    "HTTPRouteHostRewrite": {**TO_CART, **_filtered("URLRewrite", hostname="b.example")},
    "HTTPRouteMethodMatching": {**TO_CART, "matches": [{"method": "POST"}]},
    "HTTPRouteNamedRouteRule": {**TO_CART, "name": "cart"},
    "HTTPRoutePathRedirect": _filtered("RequestRedirect", path={"type": "ReplaceFullPath", "replaceFullPath": "/b"}),
    "HTTPRoutePathRewrite": {
        **TO_CART,
        **_filtered("URLRewrite", path={"type": "ReplaceFullPath", "replaceFullPath": "/b"}),
    },
    "HTTPRoutePortRedirect": _filtered("RequestRedirect", port=8443),
    "HTTPRouteQueryParamMatching": {**TO_CART, "matches": [{"queryParams": [{"name": "a", "value": "b"}]}]},
    "HTTPRouteRequestMirror": {**TO_CART, "filters": [_mirror()]},
    "HTTPRouteRequestMultipleMirrors": {**TO_CART, "filters": [_mirror(), _mirror()]},
    "HTTPRouteRequestPercentageMirror": {**TO_CART, "filters": [_mirror(percent=20)]},
    "HTTPRouteRequestTimeout": {**TO_CART, "timeouts": {"request": "1s"}},
    "HTTPRouteResponseHeaderModification": {**TO_CART, **_filtered("ResponseHeaderModifier", remove=["a"])},
    "HTTPRouteRetry": {**TO_CART, "retry": {"attempts": 2}},
    "HTTPRouteRetryBackendTimeout": {**TO_CART, "retry": {"attempts": 2}, "timeouts": {"backendRequest": "1s"}},
    "HTTPRouteRetryConnectionError": {**TO_CART, "retry": {}},
    "HTTPRouteSchemeRedirect": _filtered("RequestRedirect", scheme="https"),
}
"""A rule for each feature that is a rule's."""


def _objections(
    directory: Path,
    *,
    kind: str = "HTTPRoute",
    rule: Json = TO_CART,
    parent: Json | None = None,
    protocol: str = "http",
    gateway: Json | None = None,
    more: Sequence[Json] = (),
    has_cart: bool = True,
) -> list[str]:
    """What is said against a route with a rule, through a Gateway, to a Service of a protocol."""
    resources: list[Json] = [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "edge"},
            "spec": {
                "gatewayClassName": "infergate",
                "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}],
                **(gateway or {}),
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": "cart"},
            "spec": {"parentRefs": [{"name": "edge", **(parent or {})}], "rules": [rule]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "cart"},
            "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80, "appProtocol": protocol}]},
        },
    ]
    resources = [*(resources if has_cart else resources[:1]), *more]
    (directory / "input.yaml").write_text(yaml.safe_dump_all(resources))
    snapshot = read(directory)
    updates = derive(topology_of(snapshot), snapshot=snapshot, controller_name=CONTROLLER_NAME)
    rows = worst_first(updates, rejections=snapshot.rejections)
    return [row.text for row in rows if row.severity in (Severity.ERROR, Severity.WARNING)]


@pytest.mark.parametrize("feature", sorted(RULES))
def test_feature_of_a_rule_is_in_the_table_when_nothing_is_said_against_it(feature: str, tmp_path: Path) -> None:
    objections = _objections(tmp_path, rule=RULES[feature])
    assert (feature in FEATURES) == (not objections), objections


@pytest.mark.parametrize(
    ("feature", "protocol"),
    [("HTTPRouteBackendProtocolH2C", "kubernetes.io/h2c"), ("HTTPRouteBackendProtocolWebSocket", "kubernetes.io/ws")],
)
def test_protocol_is_in_the_table_when_nothing_is_said_against_it(feature: str, protocol: str, tmp_path: Path) -> None:
    objections = _objections(tmp_path, protocol=protocol)
    assert (feature in FEATURES) == (not objections), objections


@pytest.mark.parametrize("feature", ["HTTPRouteParentRefPort", "HTTPRouteDestinationPortMatching"])
def test_port_of_a_parent_is_supported_and_chooses_the_listener(feature: str, tmp_path: Path) -> None:
    assert feature in FEATURES
    assert _objections(tmp_path, parent={"port": 8080}) == []
    (objection,) = _objections(tmp_path, parent={"port": 8081})
    assert "NoMatchingParent" in objection


def test_propagation_is_in_the_table_when_nothing_is_said_against_it(tmp_path: Path) -> None:
    objections = _objections(tmp_path, gateway={"infrastructure": {"labels": {"a": "b"}, "annotations": {"a": "b"}}})
    assert ("GatewayInfrastructurePropagation" in FEATURES) == (not objections), objections
    assert "GatewayInfrastructurePropagation" in IN_CLUSTER  # where nothing is said: the objection is of one machine


@pytest.mark.parametrize(
    ("feature", "addresses"),
    [("GatewayAddressEmpty", [{"type": "IPAddress"}]), ("GatewayStaticAddresses", [{"value": "10.0.0.1"}])],
)
def test_addresses_are_in_the_table_when_nothing_is_said_against_them(
    feature: str, addresses: list[Json], tmp_path: Path
) -> None:
    objections = _objections(tmp_path, gateway={"addresses": addresses})
    assert (feature in FEATURES) == (not objections), objections


PASSING: Json = {"tls": {"mode": "Passthrough"}}
ENDING: Json = {"tls": {"mode": "Terminate", "certificateRefs": [{"name": "edge"}]}}
CONNECTIONS: dict[str, list[Json]] = {
    "TCPRoute": [{"protocol": "TCP"}],
    "TLSRoute": [{"protocol": "TLS", **PASSING}],
    "TLSRouteModeMixed": [
        {"protocol": "TLS", "hostname": "a.example", **PASSING},
        {"protocol": "TLS", "hostname": "b.example", **ENDING},
    ],
    "TLSRouteModeTerminate": [{"protocol": "TLS", **ENDING}],
    "UDPRoute": [{"protocol": "UDP"}],
}
"""Listeners on one port for each feature that is a route's of connections."""


@pytest.mark.parametrize("feature", sorted(CONNECTIONS))
def test_feature_of_connections_is_in_the_table_when_nothing_is_said_against_it(feature: str, tmp_path: Path) -> None:
    kind = "TLSRoute" if feature.startswith("TLSRoute") else feature
    chain, key = certificate("a.example")
    listeners = [{"name": f"l{number}", "port": 9000, **item} for number, item in enumerate(CONNECTIONS[feature])]
    route: Json = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "db"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "rules": [{"backendRefs": [{"name": "db", "port": 53}]}],
            **({"hostnames": ["a.example", "b.example"]} if kind == "TLSRoute" else {}),
        },
    }
    protocol = "UDP" if kind == "UDPRoute" else "TCP"
    db: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db"},
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 53, "protocol": protocol}]},
    }
    secret: Json = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "edge"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain.decode(), "tls.key": key.decode()},
    }
    objections = _objections(tmp_path, gateway={"listeners": listeners}, more=(route, db, secret), has_cart=False)
    assert (feature in FEATURES) == (not objections), objections


def test_every_feature_of_connections_in_the_table_is_tried() -> None:
    assert {name for name in FEATURES if name.startswith(("TCP", "TLS", "UDP"))} == CONNECTIONS.keys()


def test_named_rule_of_calls_is_in_the_table_when_nothing_is_said_against_it(tmp_path: Path) -> None:
    objections = _objections(tmp_path, kind="GRPCRoute", rule={**TO_CART, "name": "cart"})
    assert {"GRPCRoute", "GRPCRouteNamedRouteRule"} <= set(FEATURES)
    assert objections == []


AUTHORITIES: Json = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "ca"},
    "data": {"ca.crt": Authority().chain.decode()},
}
ALT_NAMES: Json = {"subjectAltNames": [{"type": "URI", "uri": "spiffe://example/cart"}]}


@pytest.mark.parametrize(
    ("feature", "validation"), [("BackendTLSPolicy", {}), ("BackendTLSPolicySANValidation", ALT_NAMES)]
)
def test_policy_is_in_the_table_when_nothing_is_said_against_it(feature: str, validation: Json, tmp_path: Path) -> None:
    policy: Json = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "cart"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "validation": {
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
                "hostname": "cart.example",
                **validation,
            },
        },
    }
    objections = _objections(tmp_path, more=[AUTHORITIES, policy])
    assert (feature in FEATURES) == (not objections), objections


def test_client_certificate_is_in_the_table_when_nothing_is_said_against_it(tmp_path: Path) -> None:
    chain, key = certificate("edge.example")
    gateway = {"tls": {"backend": {"clientCertificateRef": {"name": "edge"}}}}
    found = secret("edge", chain=chain, key=key)
    objections = _objections(tmp_path, gateway=gateway, more=[found])
    assert ("GatewayBackendClientCertificate" in FEATURES) == (not objections), objections
    (objection,) = _objections(tmp_path, gateway=gateway)
    assert "InvalidClientCertificateRef" in objection


@pytest.mark.parametrize(
    ("feature", "mode", "said"),
    [
        ("GatewayFrontendClientCertificateValidation", "AllowValidOnly", []),
        (
            "GatewayFrontendClientCertificateValidationInsecureFallback",
            "AllowInsecureFallback",
            ["InsecureFrontendValidationMode=True/ConfigurationChanged"],
        ),
    ],
)
def test_validation_of_clients_is_in_the_table_when_no_more_is_said_than_the_mode(
    feature: str, mode: str, said: list[str], tmp_path: Path
) -> None:
    references = [{"group": "", "kind": "ConfigMap", "name": "ca"}]
    default = {"validation": {"caCertificateRefs": references, "mode": mode}}
    objections = _objections(tmp_path, gateway={"tls": {"frontend": {"default": default}}}, more=[AUTHORITIES])
    assert (feature in FEATURES) == ([item.split(": ")[1] for item in objections] == said), objections


def test_listener_set_is_in_the_table_when_nothing_is_said_against_it(tmp_path: Path) -> None:
    text = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: ListenerSet
    metadata: {name: more}
    spec: {parentRef: {name: edge}, listeners: [{name: more, port: 8443, protocol: HTTP}]}
    """
    (tmp_path / "set.yaml").write_text(text)
    objections = _objections(tmp_path, gateway={"allowedListeners": {"namespaces": {"from": "Same"}}})
    assert ("ListenerSet" in FEATURES) == (not objections), objections


def test_features_of_a_field_go_with_it() -> None:
    retries = {"HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError"}
    assert features_without(()) == IN_CLUSTER
    assert set(IN_CLUSTER) - set(features_without([("HTTPRoute", "spec", "rules", "retry")])) == retries


def test_every_feature_of_a_route_in_the_table_is_tried() -> None:
    elsewhere = {
        "HTTPRoute",
        "HTTPRouteBackendProtocolH2C",
        "HTTPRouteBackendProtocolWebSocket",
        "HTTPRouteDestinationPortMatching",
        "HTTPRouteParentRefPort",
    }
    assert {name for name in FEATURES if name.startswith("HTTPRoute")} <= RULES.keys() | elsewhere


def test_features_are_sorted_and_in_the_status_of_a_class(tmp_path: Path) -> None:
    assert list(FEATURES) == sorted(FEATURES)
    _objections(tmp_path)
    snapshot = read(tmp_path)
    updates = derive(topology_of(snapshot), snapshot=snapshot, controller_name=CONTROLLER_NAME, features=FEATURES)
    (status,) = (item.status for item in updates if item.key.kind == GatewayClass.__name__)
    assert [item["name"] for item in status["supportedFeatures"]] == list(FEATURES)
