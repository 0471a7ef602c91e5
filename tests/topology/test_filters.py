"""What becomes of filters."""

from typing import Any

import pytest

from controller.headers import STEERING_HEADERS
from controller.ir.filters import (
    Cors,
    Filter,
    FullPath,
    HeaderChange,
    Mirror,
    PathChange,
    PrefixPath,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
)
from controller.ir.types import Target, ToPool, ToUpstream
from controller.resources.gateway_api import BackendObjectReference, HTTPRouteFilter
from controller.topology.conditions import Condition, unresolved
from controller.topology.filters import filters, unresolved_mirrors

Fields = dict[str, Any]  # a filter, as in YAML


def _to_web(reference: BackendObjectReference) -> Target | Condition:
    if reference.kind == "InferencePool":
        return ToPool("default/gpu")
    return ToUpstream("default/web:80") if reference.name == "web" else unresolved("BackendNotFound", "is not there")


def _filters(*items: Fields, prefix: str | None = "/a", at_backend: bool = False) -> tuple[Filter, ...] | Condition:
    models = [HTTPRouteFilter.model_validate(item) for item in items]
    return filters(models, prefix=prefix, at_backend=at_backend, where="rules[0].filters", targets=_to_web)


def _request(**change: Any) -> Fields:  # set, add and remove, as in YAML
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}


def _response(**change: Any) -> Fields:  # set, add and remove, as in YAML
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": change}


def _header(name: str, value: str = "v") -> dict[str, str]:
    return {"name": name, "value": value}


def test_header_names_are_lower_case_and_the_first_of_a_name_counts() -> None:
    change = {
        "set": [_header("X-Set", "1"), _header("x-set", "2")],
        "add": [_header("X-Add", "a,b")],
        "remove": ["X-Gone"],
    }
    expected = HeaderChange(assign=(("x-set", "1"),), append=(("x-add", "a,b"),), remove=("x-gone",))

    assert _filters(_request(**change)) == (RequestHeaders(expected),)
    assert _filters(_response(**change), at_backend=True) == (ResponseHeaders(expected),)


def test_filters_keep_their_order() -> None:
    found = _filters(_response(remove=["b"]), _request(remove=["a"]))
    assert isinstance(found, tuple)
    assert [type(item) for item in found] == [ResponseHeaders, RequestHeaders]


FORBIDDEN = [
    *("Host", "Connection", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Keep-Alive"),
    *("X-Infergate-Pool", "X-Accel-Redirect", *STEERING_HEADERS),
]


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("action", ["set", "add", "remove"])
def test_headers_of_the_gateway_cannot_be_changed(name: str, action: str) -> None:
    found = _filters(_request(**{action: [name] if action == "remove" else [_header(name)]}))

    assert isinstance(found, Condition)
    assert found.reason == "UnsupportedValue"
    assert f"header {name.lower()}" in found.message


@pytest.mark.parametrize("name", ["Connection", "X-Accel-Redirect", "Content-Length"])
def test_answers_cannot_steer_either(name: str) -> None:
    assert isinstance(_filters(_response(set=[_header(name)])), Condition)


def test_answers_may_have_a_host_header() -> None:
    assert isinstance(_filters(_response(set=[_header("Host")])), tuple)


REFUSED: list[tuple[Fields, str]] = [
    (_request(set=[_header("a.b")]), "letters, digits, '-' and '_'"),
    (_request(remove=["a b"]), "letters, digits, '-' and '_'"),
    (_request(remove=["a;\n"]), "letters, digits, '-' and '_'"),
    (_request(add=[_header("a_b")]), "letters, digits and '-'"),
    (_request(set=[_header("a")], remove=["A"]), "more than one of"),
    (_request(set=[_header("a", "b" * 3950)]), "too long"),
    (_request(set=[_header("a", "$" * 460)]), "too long: it takes 4140 bytes"),
    (_request(add=[_header("a", "\\" * 2048)]), "too long: it takes 4096 bytes"),
]


@pytest.mark.parametrize(("item", "message"), REFUSED)
def test_header_change_that_cannot_be_written_is_refused(item: Fields, message: str) -> None:
    found = _filters(item)

    assert isinstance(found, Condition)
    assert found.message.startswith("rules[0].filters[0].requestHeaderModifier: ")
    assert message in found.message


REDIRECTS: list[tuple[Fields, Redirect]] = [
    ({}, Redirect(302)),
    ({"scheme": "https", "statusCode": 301}, Redirect(301, scheme="https")),
    ({"hostname": "a.example", "port": 8080}, Redirect(302, hostname="a.example", port=8080)),
    ({"statusCode": 308}, Redirect(308)),
]


@pytest.mark.parametrize(("fields", "expected"), REDIRECTS)
def test_redirect_keeps_what_is_not_set(fields: Fields, expected: Redirect) -> None:
    assert _filters({"type": "RequestRedirect", "requestRedirect": fields}) == (expected,)


def _full(path: str) -> dict[str, str]:
    return {"type": "ReplaceFullPath", "replaceFullPath": path}


def _prefix(path: str) -> dict[str, str]:
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}


PATHS: list[tuple[dict[str, str], PathChange]] = [
    (_full("/x/y"), FullPath("/x/y")),
    (_full("/x%20y"), FullPath("/x%20y")),
    (_prefix("/x"), PrefixPath("/a", "/x")),
    (_prefix("/x/"), PrefixPath("/a", "/x")),
    (_prefix("/"), PrefixPath("/a", "")),
    (_prefix(""), PrefixPath("/a", "")),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_path_is_replaced_in_redirects_and_rewrites(path: dict[str, str], expected: PathChange) -> None:
    redirect: Fields = {"type": "RequestRedirect", "requestRedirect": {"path": path}}
    rewrite: Fields = {"type": "URLRewrite", "urlRewrite": {"path": path, "hostname": "b.example"}}

    assert _filters(redirect) == (Redirect(302, path=expected),)
    assert _filters(rewrite) == (Rewrite("b.example", expected),)


NO_PATHS = [_full("x"), _full("/a?b=c"), _full("/a b"), _full("/a\n"), _prefix("x"), _prefix("/é")]


@pytest.mark.parametrize("path", NO_PATHS)
def test_path_that_is_none_is_refused(path: dict[str, str]) -> None:
    found = _filters({"type": "URLRewrite", "urlRewrite": {"path": path}})

    assert isinstance(found, Condition)
    assert "rules[0].filters[0].urlRewrite.path.replace" in found.message


def test_prefix_cannot_be_replaced_where_no_prefix_matches() -> None:
    found = _filters({"type": "URLRewrite", "urlRewrite": {"path": _prefix("/x")}}, prefix=None)
    assert isinstance(found, Condition)


AUTH: Fields = {
    "type": "ExternalAuth",
    "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "a", "port": 80}, "http": {}},
}
EXTENSION: Fields = {"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "X", "name": "x"}}
REDIRECT: Fields = {"type": "RequestRedirect", "requestRedirect": {}}
REWRITE: Fields = {"type": "URLRewrite", "urlRewrite": {}}


@pytest.mark.parametrize("item", [AUTH, EXTENSION], ids=lambda item: str(item["type"]))
@pytest.mark.parametrize("at_backend", [False, True])
def test_unsupported_filter_is_named(item: Fields, at_backend: bool) -> None:
    found = _filters(item, at_backend=at_backend)

    assert isinstance(found, Condition)
    assert found.message.startswith(f"rules[0].filters[0].type: filter {item['type']} ")


def test_backends_take_redirects_as_rules_do() -> None:
    assert _filters(REDIRECT, at_backend=True) == _filters(REDIRECT) == (Redirect(302),)


def test_backends_rewrite() -> None:
    item = {"type": "URLRewrite", "urlRewrite": {"hostname": "b.example"}}
    assert _filters(item, at_backend=True) == (Rewrite(hostname="b.example"),)


@pytest.mark.parametrize("items", [(REDIRECT, REWRITE), (REDIRECT, REDIRECT)])
def test_incompatible_filters_are_refused(items: tuple[Fields, ...]) -> None:
    found = _filters(*items)

    assert isinstance(found, Condition)
    assert found.reason == "IncompatibleFilters"


def _mirror(name: str, kind: str = "Service", **share: Any) -> Fields:  # percent or fraction, as in YAML
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": kind, "name": name, "port": 80}, **share}}


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ({}, (Mirror("default/web:80", 100, 100),)),
        ({"percent": 20}, (Mirror("default/web:80", 20, 100),)),
        ({"fraction": {"numerator": 1, "denominator": 3}}, (Mirror("default/web:80", 1, 3),)),
        ({"percent": 0}, ()),
    ],
)
def test_mirror_has_a_share(share: Fields, expected: tuple[Filter, ...]) -> None:
    assert _filters(_mirror("web", **share)) == expected


def test_mirrors_may_be_several() -> None:
    found = _filters(_mirror("web"), _mirror("web"))
    assert isinstance(found, tuple)
    assert len(found) == 2


def test_mirror_may_lead_to_a_pool() -> None:
    assert _filters(_mirror("gpu", kind="InferencePool", percent=5)) == (Mirror("", 5, 100, pool="default/gpu"),)


def test_mirror_that_leads_nowhere_is_left_out_and_told() -> None:
    item = _mirror("nobody")
    assert _filters(item, _request(remove=["a"])) == (RequestHeaders(HeaderChange(remove=("a",))),)
    (problem,) = unresolved_mirrors([HTTPRouteFilter.model_validate(item)], where="rules[0].filters", targets=_to_web)
    assert (problem.type, problem.reason) == ("ResolvedRefs", "BackendNotFound")
    assert problem.message.startswith("rules[0].filters[0].requestMirror.backendRef: ")


def test_cors_has_its_origins_in_lower_case_and_a_short_memory() -> None:
    found = _filters({"type": "CORS", "cors": {"allowOrigins": ["https://B.example", "https://a.example"]}})
    origins = ("https://a.example", "https://b.example")
    assert found == (Cors(origins, credentials=False, methods=(), headers=(), expose=(), max_age=5),)


def test_cors_with_more_headers_than_a_line_takes_is_refused() -> None:
    names = [f"x-{number}-{'a' * 240}" for number in range(20)]
    found = _filters({"type": "CORS", "cors": {"allowHeaders": names}})
    assert isinstance(found, Condition)
    assert found.message.startswith("rules[0].filters[0].cors.allowHeaders is too long")
