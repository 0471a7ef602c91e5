"""Annotations of a route that say how important its requests are."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ir.types import NO_PRIORITY, Priority
from controller.resources.gateway_api import HTTPRoute
from controller.topology.priorities import Priorities, priorities_of
from controller.topology.types import Topology

Build = Callable[..., Topology]

NUMBER = re.compile(r"\s*(-?[0-9]{1,10})\s*")
NAMES = ("chat", "batch", None)


def _route(**annotations: str) -> HTTPRoute:
    """A route with the rules `chat`, `batch` and one without a name; `_` in an annotation stands for `-`."""
    named = {f"infergate.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return HTTPRoute.model_validate(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "llm", "namespace": "shop", "annotations": named},
            "spec": {"rules": [{"name": name} if name else {} for name in NAMES]},
        }
    )


def _read(**annotations: str) -> Priorities:
    return priorities_of(_route(**annotations))


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("5", (5, 5, 5)),
        (" -5 ", (-5, -5, -5)),
        ("2147483647", (2147483647,) * 3),
        ("-2147483648", (-2147483648,) * 3),
        ("chat=5", (5, None, None)),
        ("batch=-1,chat=5", (5, -1, None)),
        (" chat = 5 , batch = 0 ", (5, 0, None)),
    ],
)
def test_numbers_for_all_rules_or_by_name(text: str, fixed: tuple[int | None, ...]) -> None:
    found = _read(priority=text)
    assert found.invalid is None
    assert tuple(rule.fixed for rule in found.by_rule) == fixed


def test_each_annotation_says_its_own() -> None:
    found = _read(priority="batch=1", priority_cap="2", priority_default="chat=3")
    assert found.by_rule == (Priority(default=3, cap=2), Priority(fixed=1, cap=2), Priority(cap=2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", 'found ""'),
        ("high", 'found "high"'),
        ("1.5", 'found "1.5"'),
        ("2147483648", 'found "2147483648"'),
        ("chat", 'found "chat"'),
        ("chat=", 'found "chat="'),
        ("=5", "the route has the rules batch, chat"),
        ("bath=5", 'found "bath=5", the route has the rules batch, chat'),
        ("5, 6", 'found "5"'),
        ("\N{FULLWIDTH DIGIT FIVE}", "found"),
        ("5\n$host;", "found"),
    ],
)
def test_mistake_has_no_effect_and_is_told(text: str, told: str) -> None:
    found = _read(priority=text)
    assert found.by_rule == (NO_PRIORITY,) * 3
    assert found.invalid is not None
    assert found.invalid.message.startswith("without effect: metadata.annotations[infergate.dev/priority]: found ")
    assert told in found.invalid.message


def test_mistake_leaves_the_other_rules_and_annotations() -> None:
    found = _read(priority="chat=5, bath=1, chat=6", priority_cap="no", priority_default="1", priority_max="3")
    assert found.by_rule[0] == Priority(fixed=5, default=1)
    assert found.invalid is not None
    for told in ('"bath=1"', "rule chat has a number already", "priority-cap]", "found infergate.dev/priority-max"):
        assert told in found.invalid.message


@given(
    text=st.one_of(
        st.text(alphabet="chatb=,-0123456789 \n$", max_size=40),
        st.lists(st.sampled_from(["chat", "batch", "=", ",", "-", " ", "7", "2147483647", "1"]), max_size=9).map(
            "".join
        ),
    )
)
def test_what_is_not_understood_is_always_told(text: str) -> None:
    found = _read(priority=text)
    items = [item.partition("=")[::2] for item in text.split(",")]
    is_number = NUMBER.fullmatch(text) is not None
    is_list = all(name.strip() in ("chat", "batch") and NUMBER.fullmatch(number) for name, number in items)
    is_unique = len({name.strip() for name, _ in items}) == len(items)
    numbers = [int(part) for part in NUMBER.findall(text)] if is_number or is_list else []
    is_sound = (is_number or (is_list and is_unique)) and all(-(2**31) <= number < 2**31 for number in numbers)
    assert (found.invalid is None) is is_sound
    assert not is_sound or {rule.fixed for rule in found.by_rule} - {None} == set(numbers)


def test_condition_is_on_the_route_that_serves_all_the_same(build_web: Build) -> None:
    route = """
kind: HTTPRoute
metadata: {name: cart, annotations: {infergate.dev/priority: high, other.dev/priority: low}}
spec: {parentRefs: [{name: web}], rules: [{}]}
"""
    (state,) = build_web(route).routes
    told = {item.type: (item.status, item.reason) for item in state.parents[0].conditions}
    assert told["Accepted"] == (True, "Accepted")
    assert told["infergate.dev/InvalidAnnotations"] == (True, "UnsupportedValue")
    assert state.cases[0].rule.priority == NO_PRIORITY
