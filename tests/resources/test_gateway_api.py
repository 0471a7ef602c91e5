"""Defaults of the CRDs, and what they leave to whoever writes a configuration."""

from typing import Any

import pytest

from controller.resources.gateway_api import Gateway, GatewayClass, HTTPRoute, ReferenceGrant
from controller.resources.inference import InferencePool
from controller.resources.kinds import KINDS, Refused, parse, read
from controller.resources.meta import Resource
from controller.resources.scalars import seconds

HOSTILE = "\"'; } server { listen 81; } # $uri \\ \n\t\0"


def made(kind: str, **fields: Any) -> Any:  # Any: a resource of the kind
    [api_version] = [version for version, name in KINDS if name == kind][:1]
    result = read({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **fields}, index=1)
    assert isinstance(result, Resource), result
    return result


def test_route_without_anything_has_one_rule_for_every_path() -> None:
    route: HTTPRoute = made("HTTPRoute", spec={})

    [rule] = route.spec.rules
    [match] = rule.matches
    assert (match.path.type, match.path.value, match.method, match.headers) == ("PathPrefix", "/", None, ())
    assert (rule.backend_refs, rule.filters) == ((), ())


def test_references_of_a_route_have_the_defaults() -> None:
    route: HTTPRoute = made(
        "HTTPRoute",
        spec={
            "parentRefs": [{"name": "gw"}],
            "rules": [
                {
                    "matches": [
                        {"headers": [{"name": "a", "value": "b"}], "queryParams": [{"name": "a", "value": "b"}]}
                    ],
                    "filters": [{"type": "CORS", "cors": {}}],
                    "backendRefs": [{"name": "s", "port": 80}],
                    "sessionPersistence": {"cookieConfig": {}},
                }
            ],
        },
    )

    [parent], [rule] = route.spec.parent_refs, route.spec.rules
    assert (parent.group, parent.kind, parent.namespace) == ("gateway.networking.k8s.io", "Gateway", None)
    assert [rule.matches[0].headers[0].type, rule.matches[0].query_params[0].type] == ["Exact", "Exact"]
    assert (rule.backend_refs[0].group, rule.backend_refs[0].kind, rule.backend_refs[0].weight) == ("", "Service", 1)
    assert rule.filters[0].cors
    assert rule.filters[0].cors.max_age == 5
    assert rule.session_persistence
    assert rule.session_persistence.cookie_config
    assert (rule.session_persistence.type, rule.session_persistence.cookie_config.lifetime_type) == (
        "Cookie",
        "Session",
    )


def test_redirect_is_found_by_default() -> None:
    route: HTTPRoute = made(
        "HTTPRoute", spec={"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}]}
    )

    redirect = route.spec.rules[0].filters[0].request_redirect
    assert redirect
    assert redirect.status_code == 302


def test_listener_admits_routes_of_its_namespace() -> None:
    gateway: Gateway = made(
        "Gateway",
        spec={
            "gatewayClassName": "infergate",
            "listeners": [
                {"name": "a", "port": 80, "protocol": "HTTP"},
                {"name": "b", "port": 81, "protocol": "HTTP", "allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}]}},
                {"name": "c", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}},
            ],
            "allowedListeners": {},
        },
    )

    first, second, third = gateway.spec.listeners
    assert {each.allowed_routes.namespaces.from_ for each in (first, second, third)} == {"Same"}
    assert second.allowed_routes.kinds[0].group == "gateway.networking.k8s.io"
    assert third.tls
    assert (third.tls.mode, third.tls.certificate_refs[0].kind, third.tls.certificate_refs[0].group) == (
        "Terminate",
        "Secret",
        "",
    )
    assert gateway.spec.allowed_listeners
    assert gateway.spec.allowed_listeners.namespaces.from_ == "None"


def test_pool_fails_closed_by_default() -> None:
    pool: InferencePool = made(
        "InferencePool",
        spec={
            "selector": {"matchLabels": {"app": "a"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "p", "port": {"number": 9002}},
        },
    )

    picker = pool.spec.endpoint_picker_ref
    assert picker
    assert (picker.failure_mode, picker.kind, picker.group, pool.spec.app_protocol) == (
        "FailClose",
        "Service",
        "",
        "http",
    )


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_grant_of_both_versions_is_one_kind(version: str) -> None:
    grant = read(
        {
            "apiVersion": f"gateway.networking.k8s.io/{version}",
            "kind": "ReferenceGrant",
            "metadata": {"name": "a"},
            "spec": {
                "from": [{"group": "", "kind": "A", "namespace": "b"}],
                "to": [{"group": "", "kind": "Service"}],
            },
        },
        index=1,
    )

    assert isinstance(grant, ReferenceGrant)
    assert grant.spec.from_[0].namespace == "b"
    assert grant.spec.to[0].name is None


def test_all_fields_of_the_experimental_channel_are_known() -> None:
    reference = {"group": "", "kind": "ConfigMap", "name": "c"}
    service = {"name": "s", "port": 80}
    gateway = made(
        "Gateway",
        spec={
            "gatewayClassName": "infergate",
            "listeners": [{"name": "a", "port": 80, "protocol": "HTTP", "hostname": "*.a.b"}],
            "addresses": [{"type": "IPAddress", "value": "::1"}, {"type": "a.b/c", "value": "d"}, {"type": "Hostname"}],
            "infrastructure": {
                "labels": {"a": "b"},
                "annotations": {"a/b": "c"},
                "parametersRef": {"group": "a.b", "kind": "C", "name": "d"},
            },
            "allowedListeners": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}},
            "tls": {
                "backend": {"clientCertificateRef": {"name": "a"}},
                "frontend": {
                    "default": {"validation": {"caCertificateRefs": [reference], "mode": "AllowInsecureFallback"}},
                    "perPort": [{"port": 443, "tls": {"validation": {"caCertificateRefs": [reference]}}}],
                },
            },
            "defaultScope": "All",
        },
    )
    route = made(
        "HTTPRoute",
        spec={
            "useDefaultGateways": "All",
            "rules": [
                {
                    "name": "a",
                    "timeouts": {"request": "1m", "backendRequest": "10s"},
                    "retry": {"codes": [500], "attempts": 2, "backoff": "100ms"},
                    "sessionPersistence": {"sessionName": "a", "absoluteTimeout": "1h", "type": "Header"},
                    "backendRefs": [service],
                    "filters": [
                        {"type": "RequestMirror", "requestMirror": {"backendRef": service, "percent": 5}},
                        {"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "C", "name": "d"}},
                        {
                            "type": "ExternalAuth",
                            "externalAuth": {
                                "protocol": "HTTP",
                                "backendRef": service,
                                "http": {"path": "/a", "allowedHeaders": ["a"], "allowedResponseHeaders": ["b"]},
                                "forwardBody": {"maxSize": 8},
                            },
                        },
                    ],
                }
            ],
        },
    )
    class_ = made(
        "GatewayClass",
        spec={
            "controllerName": "a.b/c",
            "description": "d",
            "parametersRef": {"group": "a.b", "kind": "C", "name": "d", "namespace": "e"},
        },
    )

    assert isinstance(gateway, Gateway)
    assert isinstance(route, HTTPRoute)
    assert isinstance(class_, GatewayClass)


@pytest.mark.parametrize(
    "spec",
    [
        {"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": HOSTILE}}]}]},
        {"rules": [{"matches": [{"queryParams": [{"name": "a", "value": HOSTILE}]}]}]},
        {"rules": [{"backendRefs": [{"name": HOSTILE, "port": 80}]}]},
        {"rules": [{"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [HOSTILE]}}]}]},
        {
            "rules": [
                {
                    "filters": [
                        {
                            "type": "URLRewrite",
                            "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": HOSTILE}},
                        }
                    ]
                }
            ]
        },
        {"rules": [{"sessionPersistence": {"sessionName": HOSTILE}}]},
        {"parentRefs": [{"name": HOSTILE}]},
    ],
)
def test_strings_that_an_api_server_accepts_are_not_refused(spec: dict[str, Any]) -> None:
    """Whoever writes them into a file has to quote or to refuse them."""
    assert isinstance(made("HTTPRoute", spec=spec), HTTPRoute)


def test_header_values_may_hold_quotes_and_braces() -> None:
    value = '"; } server { listen 81; $uri \\'
    route: HTTPRoute = made("HTTPRoute", spec={"rules": [{"matches": [{"headers": [{"name": "a", "value": value}]}]}]})

    assert route.spec.rules[0].matches[0].headers[0].value == value


@pytest.mark.parametrize(
    ("duration", "length"), [("10s", 10.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1m0s", 60.0), ("0s", 0.0)]
)
def test_seconds_of_a_duration(duration: str, length: float) -> None:
    assert seconds(duration) == pytest.approx(length)


def test_python_names_are_not_fields() -> None:
    result = read(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "a"},
            "spec": {"parent_refs": []},
        },
        index=1,
    )

    assert isinstance(result, Refused)


def test_parse_names_the_source() -> None:
    result = parse({"apiVersion": "v1", "kind": "Secret"}, source="/api/v1/secrets/a", index=1)

    assert isinstance(result, tuple)
    [rejection] = result
    assert str(rejection) == "/api/v1/secrets/a: Secret in document 1: metadata: missing, it is required"
