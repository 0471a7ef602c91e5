"""Matches of GRPCRoutes, as paths."""

import pytest

from controller.ir.types import Match, PathKind
from controller.resources.grpc_route import GRPCRouteMatch
from controller.topology.conditions import Condition
from controller.topology.matches import call_of
from controller.translate.precedence import precedence


def _match(**method: str) -> Match:
    found = call_of(GRPCRouteMatch.model_validate({"method": method} if method else {}), where="matches[0]")
    assert isinstance(found, Match)
    return found


PATHS = [
    ({}, PathKind.PREFIX, ""),
    ({"service": "a.B", "method": "C"}, PathKind.EXACT, "/a.B/C"),
    ({"service": "a.B"}, PathKind.PREFIX, "/a.B"),
    ({"method": "C"}, PathKind.REGEX, "/[^/]+/C"),
    ({"type": "RegularExpression", "service": "a|b", "method": "C.*"}, PathKind.REGEX, "/(?:a|b)/(?:C.*)"),
    ({"type": "RegularExpression", "service": "a|b"}, PathKind.REGEX, "/(?:a|b)/(?:[^/]+)"),
    ({"type": "RegularExpression", "method": "C"}, PathKind.REGEX, "/(?:[^/]+)/(?:C)"),
]


@pytest.mark.parametrize(("method", "kind", "path"), PATHS)
def test_service_and_method_are_a_path(method: dict[str, str], kind: PathKind, path: str) -> None:
    found = _match(**method)
    assert (found.path.kind, found.path.value) == (kind, path)


def test_what_says_more_of_a_call_comes_first() -> None:
    ordered = [
        {"service": "a.Longer"},
        {"service": "a.B", "method": "LongMethod"},
        {"service": "a.B", "method": "C"},
        {"service": "a.B"},
        {"method": "LongMethod"},
        {"method": "C"},
        {"type": "RegularExpression", "service": "a.*", "method": "C"},
        {"type": "RegularExpression", "service": "a.*"},
        {"type": "RegularExpression", "method": "C.*"},
        {},
    ]
    matches = [_match(**method) for method in ordered]
    matches.reverse()
    assert sorted(matches, key=precedence) == [_match(**method) for method in ordered]


@pytest.mark.parametrize("field", ["service", "method"])
def test_expression_that_nginx_cannot_have_is_told_with_its_field(field: str) -> None:
    match = GRPCRouteMatch.model_validate({"method": {"type": "RegularExpression", field: "(?<name>a)"}})
    found = call_of(match, where="rules[0].matches[0]")
    assert isinstance(found, Condition)
    assert found.reason == "UnsupportedValue"
    assert found.message.startswith(f"rules[0].matches[0].method.{field}")


@pytest.mark.parametrize("name", ["X-Gateway-Model-Name", "x-gateway-base-model-name"])
def test_call_has_no_body_in_which_a_model_is_read(name: str) -> None:
    match = GRPCRouteMatch.model_validate({"headers": [{"name": "x", "value": "y"}, {"name": name, "value": "llama"}]})
    found = call_of(match, where="rules[0].matches[0]")
    assert isinstance(found, Condition)
    assert found.reason == "UnsupportedValue"
    assert found.message.startswith("rules[0].matches[0].headers: accepts headers that calls of gRPC can have")
