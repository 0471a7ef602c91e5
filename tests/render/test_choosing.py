"""Which maps choose for which places, and what a request to many of them passes through."""

import pytest

from controller.ir.types import Case, Location, Match, PathKind, PathMatch, Rule, ValueMatch
from controller.render.choosing import RuleMaps, rule_maps
from controller.render.maps import place_of
from controller.resources.meta import Key

PATH = PathMatch(PathKind.PREFIX, "")


def _case(number: int, match: Match) -> Case:
    return Case(match, Rule(Key("", "HTTPRoute", "demo", "r"), number, "", filters=(), backends=()))


def _places(*locations: tuple[Match, ...]) -> RuleMaps:
    """The maps of locations, each with its matches."""
    made = (
        place_of(Location("/", is_exact=False, cases=tuple(_case(number, match) for number, match in enumerate(each))))
        for each in locations
    )
    return rule_maps(place for place in made if place)


def _header(value: str, name: str = "x", *, is_regex: bool = False) -> Match:
    return Match(PATH, headers=(ValueMatch(name, value, is_regex),))


def _parameter(value: str, name: str = "q") -> Match:
    return Match(PATH, query=(ValueMatch(name, value),))


def test_few_choices_are_tried() -> None:
    made = _places(*((_header(str(number)),) for number in range(32)))
    assert (len(made.maps), made.lookups, made.exacts) == (1, (), ())


def test_a_thousand_places_are_looked_up_in_one_map() -> None:
    made = _places(*((_header(str(number)),) for number in range(1000)))
    (found,) = made.lookups
    assert len(found.entries) == len({entry.key for entry in found.entries}) == 1000
    assert made.maps == ()
    assert set(made.variables.values()) == {found.variable}
    assert len(made.variables) == 1000


def test_cases_of_one_place_are_looked_up() -> None:
    made = _places(tuple(_header(str(number)) for number in range(1000)))
    assert ([len(found.entries) for found in made.lookups], made.maps) == ([1000], ())


def test_of_equal_cases_the_first_holds() -> None:
    made = _places(tuple(_header(str(number % 50)) for number in range(100)))
    assert sorted(entry.rule.index for entry in made.lookups[0].entries) == list(range(50))


def test_steps_keep_the_order_of_cases() -> None:
    first = tuple(_header(f"a{number}") for number in range(20))
    second = tuple(_header(f"a{number}", is_regex=True) for number in range(2))
    third = tuple(_header(f"b{number}") for number in range(20))
    made = _places((*first, *second, *third))
    lookups = {found.variable: found for found in made.lookups}
    (tried,) = made.maps
    begin = lookups[next(iter(made.variables.values()))]
    assert [entry.rule.index for entry in begin.entries] == list(range(20))
    assert begin.default == tried.variable
    assert [choice.rule.index for choice in tried.choices] == [20, 21]
    assert [entry.rule.index for entry in lookups[tried.default].entries] == list(range(22, 42))
    assert lookups[tried.default].default == "$infergate_default"


def test_places_that_ask_for_other_things_in_the_same_steps_have_maps_of_their_own() -> None:
    first, second = (tuple(_header(f"V{number}", name=name) for number in range(40)) for name in "xy")
    made = _places(first, second)
    assert len({tried.variable for tried in made.maps}) == len(made.maps) == 2
    assert len(set(made.variables.values())) == 2


def test_cases_behind_eight_steps_are_tried() -> None:
    made = _places(tuple(_header("v", name="xy"[number % 2]) for number in range(40)))
    assert len(made.lookups) == 7
    assert [len(tried.choices) for tried in made.maps] == [33]


@pytest.mark.parametrize(
    "match",
    [
        _header("V"),
        _header("v", is_regex=True),
        _header("v" * 200),
        _parameter("a b"),
        _parameter("V"),
        _parameter("v", name="x-y"),
        Match(PATH, query=(ValueMatch("a", "1"), ValueMatch("b", "2"))),
        Match(PathMatch(PathKind.REGEX, "/x")),
    ],
)
def test_case_that_no_key_can_hold_is_tried(match: Match) -> None:
    made = _places((match, *(_header(str(number)) for number in range(40))))
    assert [choice.rule.index for tried in made.maps for choice in tried.choices] == [0]


def test_odd_query_leads_to_expressions_over_all_of_it() -> None:
    made = _places(tuple(_parameter(str(number)) for number in range(40)))
    (found,), (tried,) = made.lookups, made.maps
    assert [entry.asks for entry in found.entries if entry.key.endswith('%"')] == [tried.variable]
    assert len(tried.choices) == 40


def _tried(*names: str) -> RuleMaps:
    return _places(*((_header(f"Tenant-{name}"),) for name in names))


def test_a_thousand_places_that_are_tried_share_a_few_maps() -> None:
    made = _tried(*map(str, range(1000)))
    assert len(made.variables) == 1000
    assert len(made.maps) <= 48
    assert max(len(item.choices) for item in made.maps) < 60


def test_one_place_more_leaves_most_maps_as_they_are() -> None:
    before, after = set(_tried(*map(str, range(1, 1000))).maps), set(_tried(*map(str, range(1000))).maps)
    assert len(after - before) == 1
