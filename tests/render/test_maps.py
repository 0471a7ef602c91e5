"""The expressions of rule maps, tried with Python's `re`, whose syntax agrees with PCRE's here."""

import re

import pytest

from controller.ir.types import Case, Location, Match, PathKind, PathMatch, Rule, ValueMatch
from controller.render.choosing import RuleMaps, rule_maps
from controller.render.maps import place_of
from controller.resources.meta import Key

PATH = PathMatch(PathKind.PREFIX, "")


def _maps(*matches: Match) -> RuleMaps:
    """The maps of one location for each match."""
    rule = Rule(Key("", "HTTPRoute", "demo", "r"), 0, "", filters=(), backends=())
    places = (place_of(Location("/", is_exact=False, cases=(Case(match, rule),))) for match in matches)
    return rule_maps(place for place in places if place)


def _chosen(match: Match, source: str) -> bool:
    """Whether the only choice of a location with this one case takes a source, given as its lines behind the place."""
    (place,), (made,) = _maps(match).variables, _maps(match).maps
    pattern = made.choices[0].pattern.replace(r"\z", r"\Z")  # PCRE's name for the very end
    return re.match(pattern, f"{place}\n{source}") is not None


@pytest.mark.parametrize(
    ("value", "header", "holds"),
    [
        ("gold", "gold", True),
        ("gold", "golden", False),
        ("gold", "Gold", False),
        ("a, b", "a, b", True),
        ("a.c", "abc", False),
        ('q"\\d$', 'q"\\d$', True),
        ("", "", True),
    ],
)
def test_header_matches_its_whole_value(value: str, header: str, holds: bool) -> None:
    assert _chosen(Match(PATH, headers=(ValueMatch("x", value),)), f"{header}\n") is holds


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("color=blue", True),
        ("a=1&color=blue&b=2", True),
        ("color=bl%75e", True),
        ("c%6Flor=blue", True),
        ("color=blue&color=red", True),
        ("color=red&color=blue", False),
        ("Color=blue", False),
        ("xcolor=blue", False),
        ("color=blues", False),
        ("color", False),
        ("", False),
    ],
)
def test_first_parameter_of_a_name_decides(query: str, holds: bool) -> None:
    assert _chosen(Match(PATH, query=(ValueMatch("color", "blue"),)), f"{query}\n") is holds


def test_expressions_on_headers_whose_names_begin_alike_are_told_apart() -> None:
    first = _maps(Match(PATH, headers=(ValueMatch("x-v", "1.*", is_regex=True),))).maps[0].choices[0].flags
    second = _maps(Match(PATH, headers=(ValueMatch("x-v1", ".*", is_regex=True),))).maps[0].choices[0].flags
    assert first[0].variable != second[0].variable


@pytest.mark.parametrize("query", ["q=a+b", "q=a%20b"])
def test_space_in_a_parameter_may_be_written_both_ways(query: str) -> None:
    assert _chosen(Match(PATH, query=(ValueMatch("q", "a b"),)), f"{query}\n")


def test_all_conditions_hold_together() -> None:
    match = Match(
        PATH, method="POST", headers=(ValueMatch("a", "1"), ValueMatch("b", "2")), query=(ValueMatch("q", "3"),)
    )
    assert _chosen(match, "POST\n1\n2\nq=3\n")
    assert not _chosen(match, "POST\n1\nx\nq=3\n")
    assert not _chosen(match, "GET\n1\n2\nq=3\n")


@pytest.mark.parametrize(
    ("expression", "path", "holds"),
    [("/v[0-9]+", "/v1", True), ("/v[0-9]+", "/v1/x", False), ("/v[0-9]+", "/x/v1", False), ("/a|/b", "/bc", False)],
)
def test_regular_expression_takes_the_whole_path(expression: str, path: str, holds: bool) -> None:
    assert _chosen(Match(PathMatch(PathKind.REGEX, expression)), path) is holds


def test_no_expression_has_a_capture() -> None:
    match = Match(PATH, method="POST", headers=(ValueMatch("a", "(1)"),), query=(ValueMatch("(q)", "(3)"),))
    (made,) = _maps(match).maps
    assert all(re.compile(choice.pattern).groups == 0 for choice in made.choices)


def test_place_of_another_location_does_not_hold() -> None:
    (made,) = _maps(Match(PATH, method="GET"), Match(PATH, method="POST")).maps
    place = next(choice.pattern for choice in made.choices if "GET" in choice.pattern)[1:11]
    assert [bool(re.match(choice.pattern, f"{place}\nPOST\n")) for choice in made.choices] == [False, False]
