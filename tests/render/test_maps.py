"""The expressions of rule maps, tried with Python's `re`, whose syntax agrees with PCRE's here."""

import re

import pytest

from controller.ir.types import Case, Location, Match, PathKind, PathMatch, Rule, ValueMatch
from controller.render.maps import rule_map
from controller.resources.meta import Key

PATH = PathMatch(PathKind.PREFIX, "")


def _chosen(match: Match, source: str) -> bool:
    """Whether the only choice of a location with this one case takes a source, given as its lines."""
    rule = Rule(Key("", "HTTPRoute", "demo", "r"), 0, "", filters=(), backends=())
    found = rule_map(Location("/", is_exact=False, cases=(Case(match, rule),)))
    assert found is not None
    pattern = found.choices[0].pattern
    assert pattern is not None
    return re.match(pattern, source) is not None


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


def test_no_expression_has_a_capture() -> None:
    match = Match(PATH, method="POST", headers=(ValueMatch("a", "(1)"),), query=(ValueMatch("(q)", "(3)"),))
    rule = Rule(Key("", "HTTPRoute", "demo", "r"), 0, "", filters=(), backends=())
    found = rule_map(Location("/", is_exact=False, cases=(Case(match, rule),)))
    assert found is not None
    assert all(re.compile(choice.pattern or "").groups == 0 for choice in found.choices)
