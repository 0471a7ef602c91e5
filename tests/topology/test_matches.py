"""What becomes of the matches of a rule."""

from typing import Any

import pytest

from controller.ir.types import Match, PathKind, PathMatch, ValueMatch
from controller.resources.gateway_api import HTTPRouteMatch
from controller.topology.conditions import Condition
from controller.topology.matches import match_of


def _match(**fields: Any) -> Match | Condition:  # fields of a match, as in YAML
    return match_of(HTTPRouteMatch.model_validate(fields), where="rules[0].matches[0]")


PATHS = [
    ({}, PathMatch(PathKind.PREFIX, "")),
    ({"value": "/"}, PathMatch(PathKind.PREFIX, "")),
    ({"value": "/a"}, PathMatch(PathKind.PREFIX, "/a")),
    ({"value": "/a/"}, PathMatch(PathKind.PREFIX, "/a")),
    ({"value": "/a%20b/"}, PathMatch(PathKind.PREFIX, "/a b")),
    ({"value": "/caf%C3%A9"}, PathMatch(PathKind.PREFIX, "/café")),
    ({"value": "/A"}, PathMatch(PathKind.PREFIX, "/A")),
    ({"type": "Exact", "value": "/"}, PathMatch(PathKind.EXACT, "/")),
    ({"type": "Exact", "value": "/a/"}, PathMatch(PathKind.EXACT, "/a/")),
    ({"type": "RegularExpression", "value": "/(a|b)"}, PathMatch(PathKind.REGEX, "/(?:a|b)")),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_path_is_decoded_and_prefix_loses_its_slash(path: dict[str, str], expected: PathMatch) -> None:
    assert _match(path=path) == Match(expected)


def test_header_names_are_lower_case_and_the_first_of_a_name_counts() -> None:
    headers = [{"name": "X-One", "value": "1"}, {"name": "x-one", "value": "2"}, {"name": "b", "value": "3"}]
    found = _match(headers=headers)

    assert isinstance(found, Match)
    assert found.headers == (ValueMatch("x-one", "1"), ValueMatch("b", "3"))


def test_query_names_keep_their_case() -> None:
    query = [{"name": "Animal", "value": "a&b"}, {"name": "animal", "value": "x.*", "type": "RegularExpression"}]
    found = _match(queryParams=query, method="GET")

    assert isinstance(found, Match)
    assert found.method == "GET"
    assert found.query == (ValueMatch("Animal", "a&b"), ValueMatch("animal", "x.*", is_regex=True))


REFUSED: list[tuple[dict[str, Any], str]] = [  # fields of a match, as in YAML
    ({"path": {"value": "/a%0Ab"}}, ".path.value"),
    ({"path": {"value": "/a%00"}}, ".path.value"),
    ({"path": {"value": "/a%FF"}}, ".path.value"),
    ({"path": {"type": "RegularExpression", "value": "a)|(b"}}, ".path.value: regular expression"),
    ({"headers": [{"name": "x_under", "value": "a"}]}, ".headers[0].name"),
    ({"headers": [{"name": "x.dot", "value": "a"}]}, ".headers[0].name"),
    ({"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]}, ".headers[0].value: regular expression"),
    ({"headers": [{"name": "a", "value": "." * 2048}]}, ": the match is too long"),
    ({"queryParams": [{"name": "a", "value": "a" * 1024}]}, ": the match is too long"),
    ({"headers": [{"name": "a" * 240 + str(n), "value": "b"} for n in range(16)]}, ": the match is too long"),
    ({"path": {"value": "/x/%2e%2e/b"}}, ".path.value: nginx resolves"),
    ({"queryParams": [{"name": "my-a", "value": "b", "type": "RegularExpression"}]}, ".queryParams[0].name"),
    ({"queryParams": [{"name": "a", "value": "b\nc"}]}, ".queryParams[0].value has a control character"),
    ({"queryParams": [{"name": "a", "value": "(*F)", "type": "RegularExpression"}]}, ".queryParams[0].value: regular"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_match_that_cannot_be_written_is_refused(fields: dict[str, Any], message: str) -> None:  # as in YAML
    found = _match(**fields)

    assert isinstance(found, Condition)
    assert found.reason == "UnsupportedValue"
    assert f"rules[0].matches[0]{message}" in found.message
