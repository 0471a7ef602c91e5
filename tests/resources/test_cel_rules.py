"""Every CEL rule of the CRDs of the kinds that are read (Gateway API v1.6.1 experimental, Inference Extension v1.6.0).

A rule is named by its kind, the path of the schema it stands at, and the first ten digits of the SHA-256 of its
expression with single spaces. It has an example that breaks it with the field that is told, or why it is left out.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources.kinds import MODELS, Refused, read

Fields = dict[str, Any]  # any: parts of documents of any shape


@dataclass(frozen=True)
class Rule:
    """One CEL rule."""

    kind: str
    path: str
    digest: str
    spec: Fields | None
    """A `spec` that breaks this rule."""
    field: str
    """Of the problem that is told; without a `spec`, why the rule is left out."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}:{self.digest}"


def gateway(**fields: Any) -> Fields:
    """A Gateway's spec."""
    return {"gatewayClassName": "infergate", "listeners": [listener()], **fields}


def listener(**fields: Any) -> Fields:
    """One listener."""
    return {"name": "http", "port": 80, "protocol": "HTTP", **fields}


def rule(**fields: Any) -> Fields:
    """An HTTPRoute's spec with one rule."""
    return {"rules": [fields]}


def parents(*references: Fields) -> Fields:
    """An HTTPRoute's spec with references to Gateway gw."""
    return {"parentRefs": [{"name": "gw", **each} for each in references]}


_LONG = ".".join(["a" * 60] * 5)
_SERVICE = {"name": "s", "port": 80}
_REDIRECT_PREFIX = {
    "type": "RequestRedirect",
    "requestRedirect": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}},
}
_REWRITE_PREFIX = {
    "type": "URLRewrite",
    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}},
}
_EXACT = [{"path": {"type": "Exact", "value": "/a"}}]

_GATEWAY = [
    (
        "spec.addresses",
        "1ff4561772",
        gateway(addresses=[{"value": "10.0.0.1"}, {"value": "10.0.0.1"}]),
        "spec.addresses[1].value",
    ),
    (
        "spec.addresses",
        "43360f8ad2",
        gateway(addresses=[{"type": "Hostname", "value": "a.b"}, {"type": "Hostname", "value": "a.b"}]),
        "spec.addresses[1].value",
    ),
    (
        "spec.addresses[]",
        "dac2850f16",
        gateway(addresses=[{"type": "Hostname", "value": "A_b"}]),
        "spec.addresses[0].value",
    ),
    (
        "spec.infrastructure.annotations",
        "9d8358ece3",
        gateway(infrastructure={"annotations": {"a b": "c"}}),
        "spec.infrastructure.annotations[a b]",
    ),
    (
        "spec.infrastructure.annotations",
        "4b9766f719",
        gateway(infrastructure={"annotations": {f"{_LONG}/n": "c"}}),
        "spec.infrastructure.annotations",
    ),
    (
        "spec.infrastructure.labels",
        "9d8358ece3",
        gateway(infrastructure={"labels": {"-a": "c"}}),
        "spec.infrastructure.labels[-a]",
    ),
    (
        "spec.infrastructure.labels",
        "4b9766f719",
        gateway(infrastructure={"labels": {f"{_LONG}/n": "c"}}),
        "spec.infrastructure.labels",
    ),
    (
        "spec.listeners",
        "78a7723977",
        gateway(listeners=[listener(tls={"certificateRefs": [{"name": "c"}]})]),
        "spec.listeners[0].tls",
    ),
    (
        "spec.listeners",
        "aec2bd596a",
        gateway(listeners=[listener(protocol="HTTPS", tls={"mode": "Passthrough"})]),
        "spec.listeners[0].tls.mode",
    ),
    ("spec.listeners", "79a4844635", gateway(listeners=[listener(protocol="TLS")]), "spec.listeners[0].tls"),
    (
        "spec.listeners",
        "e658cd99f5",
        gateway(listeners=[listener(protocol="TCP", hostname="a.b")]),
        "spec.listeners[0].hostname",
    ),
    ("spec.listeners", "b3c66e248d", gateway(listeners=[listener(), listener(port=81)]), "spec.listeners[1].name"),
    ("spec.listeners", "d31959b5ef", gateway(listeners=[listener(), listener(name="b")]), "spec.listeners[1]"),
    (
        "spec.listeners[].tls",
        "f161b726ab",
        gateway(listeners=[listener(protocol="HTTPS", tls={})]),
        "spec.listeners[0].tls.certificateRefs",
    ),
    (
        "spec.tls.frontend.perPort",
        "419307373c",
        gateway(tls={"frontend": {"default": {}, "perPort": [{"port": 1, "tls": {}}, {"port": 1, "tls": {}}]}}),
        "spec.tls.frontend.perPort[1].port",
    ),
]

_ROUTE = [
    ("spec.parentRefs", "30e99257d5", parents({}, {"sectionName": "a"}), "spec.parentRefs[1].sectionName"),
    ("spec.parentRefs", "8392cce9fd", parents({"port": 1}, {"port": 1}), "spec.parentRefs[1]"),
    (
        "spec.rules",
        "dfef9215af",
        {"rules": [{"matches": [{"path": {"value": f"/{n}"}} for n in range(43)]}] * 3},
        "spec.rules",
    ),
    ("spec.rules", "5d343ad9ee", {"rules": [{"name": "a"}, {"name": "a"}]}, "spec.rules[1].name"),
    (
        "spec.rules[]",
        "80d5779a11",
        rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"port": 1}}], backendRefs=[_SERVICE]),
        "spec.rules[0].backendRefs",
    ),
    (
        "spec.rules[]",
        "14c17d520e",
        rule(matches=_EXACT, filters=[_REDIRECT_PREFIX]),
        "spec.rules[0].filters[0].requestRedirect.path.replacePrefixMatch",
    ),
    (
        "spec.rules[]",
        "0fa5a331dd",
        rule(matches=[{}, {}], filters=[_REWRITE_PREFIX]),
        "spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch",
    ),
    (
        "spec.rules[]",
        "06e14dab4f",
        rule(matches=_EXACT, backendRefs=[{**_SERVICE, "filters": [_REDIRECT_PREFIX]}]),
        "spec.rules[0].backendRefs[0].filters[0].requestRedirect.path.replacePrefixMatch",
    ),
    (
        "spec.rules[]",
        "bf9fd4333d",
        rule(matches=_EXACT, backendRefs=[{**_SERVICE, "filters": [_REWRITE_PREFIX]}]),
        "spec.rules[0].backendRefs[0].filters[0].urlRewrite.path.replacePrefixMatch",
    ),
    (
        "spec.rules[].backendRefs[]",
        "089ed26a9f",
        rule(backendRefs=[{"name": "s"}]),
        "spec.rules[0].backendRefs[0].port",
    ),
    (
        "spec.rules[].sessionPersistence",
        "7a1ec12070",
        rule(sessionPersistence={"cookieConfig": {"lifetimeType": "Permanent"}}),
        "spec.rules[0].sessionPersistence.absoluteTimeout",
    ),
    (
        "spec.rules[].sessionPersistence",
        "14f22f6133",
        rule(sessionPersistence={"type": "Header", "cookieConfig": {}}),
        "spec.rules[0].sessionPersistence.cookieConfig",
    ),
    (
        "spec.rules[].timeouts",
        "3f02004fba",
        rule(timeouts={"request": "1s", "backendRequest": "1m"}),
        "spec.rules[0].timeouts.backendRequest",
    ),
]

_PATHS = [
    ("d1b1dcc5e5", "Exact", "a"),
    ("2a730cbab5", "PathPrefix", "/a//b"),
    ("8c3f86ff50", "Exact", "/a/./b"),
    ("ced0ffeab4", "PathPrefix", "/a/../b"),
    ("16add9e26d", "Exact", "/a%2fb"),
    ("5f510e9128", "PathPrefix", "/a%2Fb"),
    ("209894350d", "Exact", "/a#b"),
    ("0c441c9dd7", "PathPrefix", "/a/.."),
    ("c36405e2d0", "Exact", "/a/."),
    ("67736b8f42", "PathPrefix", "/a b"),
]

_HEADERS = {"set": [{"name": "a", "value": "b"}]}
_WHOLE: dict[str, tuple[str, Fields]] = {
    "RequestHeaderModifier": ("requestHeaderModifier", _HEADERS),
    "ResponseHeaderModifier": ("responseHeaderModifier", _HEADERS),
    "RequestMirror": ("requestMirror", {"backendRef": _SERVICE}),
    "RequestRedirect": ("requestRedirect", {"port": 1}),
    "URLRewrite": ("urlRewrite", {"hostname": "a.b"}),
    "CORS": ("cors", {}),
    "ExternalAuth": ("externalAuth", {"protocol": "HTTP", "http": {}, "backendRef": _SERVICE}),
    "ExtensionRef": ("extensionRef", {"group": "a.b", "kind": "C", "name": "d"}),
}


def filter_of(type_: str, **fields: Any) -> Fields:
    """A filter with the field of its type, which `fields` replace in part."""
    name, value = _WHOLE[type_]
    return {"type": type_, name: {**value, **fields}}


_REPEATED = [
    ("ee6a308c41", "CORS"),
    ("501e61ba52", "RequestHeaderModifier"),
    ("226cc5e317", "ResponseHeaderModifier"),
    ("c1f6cb742f", "RequestRedirect"),
    ("61ed15b8b7", "URLRewrite"),
]

_TYPES = [  # (field without its type, type without its field, type)
    ("1b5e24ab18", "53315200e5", "CORS"),
    ("7b8cf86874", "eb3032de76", "RequestHeaderModifier"),
    ("c0838ca9ab", "a900d76372", "ResponseHeaderModifier"),
    ("c2c4ceb30c", "479cd4bff5", "RequestMirror"),
    ("bec67f21a5", "96f72312eb", "RequestRedirect"),
    ("bc36c2fa84", "769cafeb49", "URLRewrite"),
    ("28f68457ca", "32fcae1cb6", "ExtensionRef"),
    ("c8cbd34fb9", "3f23e50c28", "ExternalAuth"),
]

_MODIFIERS: list[tuple[str, Fields, str]] = [
    ("85716a2b53", {"type": "ReplaceFullPath"}, "replaceFullPath"),
    (
        "c04f03f45b",
        {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/a", "replaceFullPath": "/a"},
        "replaceFullPath",
    ),
    ("4dba3b1d65", {"type": "ReplacePrefixMatch"}, "replacePrefixMatch"),
    (
        "02cf28521a",
        {"type": "ReplaceFullPath", "replacePrefixMatch": "/a", "replaceFullPath": "/a"},
        "replacePrefixMatch",
    ),
]


def _mirror(**fields: Any) -> list[Fields]:
    return [filter_of("RequestMirror", **fields)]


def _auth(**fields: Any) -> list[Fields]:
    return [{"type": "ExternalAuth", "externalAuth": {"backendRef": _SERVICE, **fields}}]


_FILTERS: list[tuple[str, str, list[Fields], str]] = [  # below `filters`
    ("", "24c3fdad46", [filter_of("RequestRedirect"), filter_of("URLRewrite")], "[1].type"),
    *[("", digest, [filter_of(type_)] * 2, "[1].type") for digest, type_ in _REPEATED],
    *[
        (
            "[]",
            digest,
            [{**filter_of("CORS" if type_ != "CORS" else "URLRewrite"), _WHOLE[type_][0]: _WHOLE[type_][1]}],
            f"[0].{_WHOLE[type_][0]}",
        )
        for digest, _, type_ in _TYPES
    ],
    *[("[]", digest, [{"type": type_}], f"[0].{_WHOLE[type_][0]}") for _, digest, type_ in _TYPES],
    *[
        (f"[].cors.{name}", "e261026153", [filter_of("CORS", **{name: ["*", other]})], f"[0].cors.{name}[0]")
        for name, other in (("allowHeaders", "a"), ("allowMethods", "GET"), ("allowOrigins", "http://a.b"))
    ],
    ("[].externalAuth", "fbee517ef2", _auth(protocol="GRPC"), "[0].externalAuth.grpc"),
    ("[].externalAuth", "1add1dca67", _auth(protocol="HTTP", http={}, grpc={}), "[0].externalAuth.grpc"),
    ("[].externalAuth", "43a774e090", _auth(protocol="HTTP"), "[0].externalAuth.http"),
    ("[].externalAuth", "e2083e9fe8", _auth(protocol="GRPC", http={}, grpc={}), "[0].externalAuth.http"),
    (
        "[].externalAuth.backendRef",
        "089ed26a9f",
        _auth(protocol="HTTP", http={}, backendRef={"name": "s"}),
        "[0].externalAuth.backendRef.port",
    ),
    ("[].requestMirror", "2179202e3c", _mirror(percent=1, fraction={"numerator": 1}), "[0].requestMirror.fraction"),
    (
        "[].requestMirror.backendRef",
        "089ed26a9f",
        _mirror(backendRef={"name": "s"}),
        "[0].requestMirror.backendRef.port",
    ),
    (
        "[].requestMirror.fraction",
        "c7c8b7bb79",
        _mirror(fraction={"numerator": 101}),
        "[0].requestMirror.fraction.numerator",
    ),
    *[
        (f"[].{_WHOLE[type_][0]}.path", digest, [filter_of(type_, path=path)], f"[0].{_WHOLE[type_][0]}.path.{field}")
        for type_ in ("RequestRedirect", "URLRewrite")
        for digest, path, field in _MODIFIERS
    ],
]

_STREAM = {"rules": [{"backendRefs": [_SERVICE]}]}
_NAMED = {"hostnames": ["a.example"]}


def _of_connections(kind: str, more: Fields) -> list[Rule]:
    """The rules that routes of connections have in common; `more` is what the kind needs beside rules."""
    spec = {**_STREAM, **more}
    return [
        Rule(kind, "spec.parentRefs", "30e99257d5", {**spec, **parents({"port": 80}, {})}, "spec.parentRefs[1].port"),
        Rule(kind, "spec.parentRefs", "8392cce9fd", {**spec, **parents({}, {})}, "spec.parentRefs[1]"),
        Rule(
            kind,
            "spec.rules[].backendRefs[]",
            "089ed26a9f",
            {**spec, **rule(backendRefs=[{"name": "s"}])},
            "spec.rules[0].backendRefs[0].port",
        ),
    ]


_OF_CALLS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef")
_CALL_FILTERS: list[tuple[str, str, list[Fields], str]] = [  # those of _FILTERS that a GRPCRoute has
    row for row in _FILTERS if all(item["type"] in _OF_CALLS for item in row[2])
] + [
    (
        "[]",
        digest,
        [
            {
                **filter_of("RequestMirror" if type_ == "ExtensionRef" else "ExtensionRef"),
                _WHOLE[type_][0]: _WHOLE[type_][1],
            }
        ],
        f"[0].{_WHOLE[type_][0]}",
    )
    for digest, _, type_ in _TYPES
    if type_ in _OF_CALLS
]
_ALIKE = ("spec.parentRefs", "spec.rules[].backendRefs[]", "spec.rules[].sessionPersistence")
_CALLS = [
    *(row for row in _ROUTE if row[0] in _ALIKE or row[1] == "5d343ad9ee"),
    (
        "spec.rules",
        "837b88f53c",
        {"rules": [{"matches": [{"method": {"method": f"M{n}"}} for n in range(43)]}] * 3},
        "spec.rules",
    ),
    ("spec.rules[].matches[].method", "6cb810174e", rule(matches=[{"method": {"type": "Exact"}}]), "spec.rules[0]"),
    (
        "spec.rules[].matches[].method",
        "fb8615af1d",
        rule(matches=[{"method": {"method": "a-b"}}]),
        "spec.rules[0].matches[0].method.method",
    ),
    (
        "spec.rules[].matches[].method",
        "7797fc3131",
        rule(matches=[{"method": {"service": "a..b"}}]),
        "spec.rules[0].matches[0].method.service",
    ),
]


def _set_of(spec: Fields | None) -> Fields | None:
    """The listeners of a Gateway in a ListenerSet."""
    return spec and {"parentRef": {"name": "a"}, "listeners": spec["listeners"]}


RULES: tuple[Rule, ...] = (
    *_of_connections("TLSRoute", _NAMED),
    *_of_connections("TCPRoute", {}),
    *_of_connections("UDPRoute", {}),
    *(
        Rule("TLSRoute", "spec.hostnames", digest, {**_STREAM, "hostnames": ["a.b", hostname]}, "spec.hostnames[1]")
        for digest, hostname in (("0843be6f69", "10.0.0.1"), ("20123a065b", "a_b"), ("b31a373d8a", "a.*.b"))
    ),
    *(Rule("GRPCRoute", *row) for row in _CALLS),
    *(
        Rule("GRPCRoute", f"spec.rules[].filters{path}", digest, rule(filters=filters), f"spec.rules[0].filters{field}")
        for path, digest, filters, field in _CALL_FILTERS
    ),
    *(
        Rule(
            "GRPCRoute",
            f"spec.rules[].backendRefs[].filters{path}",
            digest,
            rule(backendRefs=[{**_SERVICE, "filters": filters}]),
            f"spec.rules[0].backendRefs[0].filters{field}",
        )
        for path, digest, filters, field in _CALL_FILTERS
    ),
    Rule("GatewayClass", "spec.controllerName", "f4f4adcfb2", None, "compares with the stored object"),
    *(Rule("Gateway", *row) for row in _GATEWAY),
    *(
        # Ports were optional once, and the rule still says so.
        Rule("ListenerSet", path, "e3e62c2ad4" if digest == "d31959b5ef" else digest, _set_of(spec), field)
        for path, digest, spec, field in _GATEWAY
        if path.startswith("spec.listeners")
    ),
    Rule("Gateway", "status.addresses[]", "b3d66a6470", None, "status is not what users write"),
    *(Rule("HTTPRoute", *row) for row in _ROUTE),
    *(
        Rule(
            "HTTPRoute",
            "spec.rules[].matches[].path",
            digest,
            rule(matches=[{"path": {"type": type_, "value": value}}]),
            "spec.rules[0].matches[0].path.value",
        )
        for digest, type_, value in _PATHS
    ),
    Rule(
        "HTTPRoute",
        "spec.rules[].matches[].path",
        "1267f0554f",
        rule(matches=[{"path": {"type": "Glob", "value": "/"}}]),
        "spec.rules[0].matches[0].path.type",
    ),
    *(
        Rule("HTTPRoute", f"spec.rules[].filters{path}", digest, rule(filters=filters), f"spec.rules[0].filters{field}")
        for path, digest, filters, field in _FILTERS
    ),
    *(
        Rule(
            "HTTPRoute",
            f"spec.rules[].backendRefs[].filters{path}",
            digest,
            rule(backendRefs=[{**_SERVICE, "filters": filters}]),
            f"spec.rules[0].backendRefs[0].filters{field}",
        )
        for path, digest, filters, field in _FILTERS
    ),
    Rule(
        "InferencePool",
        "spec.endpointPickerRef",
        "d255c374f1",
        {
            "selector": {"matchLabels": {"a": "b"}},
            "targetPorts": [{"number": 1}],
            "endpointPickerRef": {"name": "p"},
        },
        "spec.endpointPickerRef.port",
    ),
    Rule(
        "InferencePool",
        "spec.targetPorts",
        "153a7628a7",
        {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": [{"number": 1}, {"number": 1}]},
        "spec.targetPorts[1].number",
    ),
)

EXAMPLES = [each for each in RULES if each.spec is not None]
API_VERSION = {model.__name__: f"{model.group}/{model.versions[0]}" for model in MODELS}


@pytest.mark.parametrize("rule", EXAMPLES, ids=str)
def test_example_is_refused_for_its_field_alone(rule: Rule) -> None:
    document = {
        "apiVersion": API_VERSION[rule.kind],
        "kind": rule.kind,
        "metadata": {"name": "broken", "namespace": "demo"},
        "spec": rule.spec,
    }

    result = read(document, index=1)

    assert isinstance(result, Refused)
    assert result.subject == f"{rule.kind} demo/broken"
    [problem] = result.problems
    assert problem.field.startswith(rule.field)


def test_every_rule_is_in_the_table_once() -> None:
    counts = Counter(str(rule) for rule in RULES)

    assert len(RULES) == 180  # rules of the ten CRDs, version v1
    assert max(counts.values()) == 1


@pytest.mark.skipif("INFERGATE_TEST_CRDS" not in os.environ, reason="needs INFERGATE_TEST_CRDS, a directory of CRDs")
def test_table_is_that_of_the_crds() -> None:
    files = Path(os.environ["INFERGATE_TEST_CRDS"]).glob("*.yaml")
    documents = [each for path in files for each in yaml.safe_load_all(path.read_text()) if each]
    kinds = {rule.kind for rule in RULES}

    found = {
        f"{crd['spec']['names']['kind']}:{path}:{digest}"
        for crd in documents
        if crd["kind"] == "CustomResourceDefinition" and crd["spec"]["names"]["kind"] in kinds
        for version in crd["spec"]["versions"]
        if version["name"] == "v1"
        for path, digest in _rules("", version["schema"]["openAPIV3Schema"])
    }

    assert found == {str(rule) for rule in RULES}


def _rules(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:  # Any: an OpenAPI schema
    for rule in schema.get("x-kubernetes-validations", []):
        expression = " ".join(rule["rule"].split())
        yield path, hashlib.sha256(expression.encode()).hexdigest()[:10]
    for name, inner in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}" if path else name, inner)
    if "items" in schema:
        yield from _rules(f"{path}[]", schema["items"])
