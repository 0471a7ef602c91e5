"""What a request is told that asks why."""

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.picker.answers import Refusal
from controller.picker.explain import LARGEST, MOST_CANDIDATES, explanation
from controller.picker.requests import PickRequest
from controller.picker.scheduling.profile import PluginSpec
from controller.picker.scheduling.scorers.expected_time import ExpectedTimeScorer
from controller.picker.trace import Trace

from .conftest import Picker, request_of

PROMPT = b"system prompt " * 600


def explained(picker: Picker, request: str, **asked: Any) -> Any:  # Any: fields of a request; JSON
    """Pick, and tell why."""
    one = request_of(request, trace=Trace(), **asked)
    picked = picker.director.pick(one)
    assert one.trace is not None
    if isinstance(picked, Refusal):
        value = explanation(one, one.trace, outcome=picked.outcome.value)
    else:
        value = explanation(one, one.trace, outcome="picked", chosen=picked)
    assert len(value) <= LARGEST
    return json.loads(value.decode("ascii"))


def test_choice_is_told_with_scores_and_terms(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    first = picker.pick("1", prompt=PROMPT, is_streamed=True)
    told = explained(picker, "2", prompt=PROMPT)
    chosen, *others = told["candidates"]
    assert (told["outcome"], told["why"], told["leftOut"]) == ("picked", "max-score-picker of 3", 0)
    assert told["choice"] == chosen["endpoint"]
    assert (told["promptTokens"], told["weights"]) == (2100, {"expected-time-scorer": 1.0})
    assert told["cachedTokens"] == chosen["cachedTokens"]
    assert {one["endpoint"]: one["cachedTokens"] > 0 for one in told["candidates"]}[f"{first}:8000"]
    for one in (chosen, *others):
        seconds = sum(one["terms"]["expected-time-scorer"].values())
        assert one["scores"]["expected-time-scorer"] == pytest.approx(1 / (1 + seconds), abs=1e-4)
        assert one["total"] <= chosen["total"]


def test_trace_changes_no_choice() -> None:
    plain, asked = Picker(), Picker()
    for each in (plain, asked):
        each.serve("a", "b", "c", "d")
    for number in range(200):
        prompt = PROMPT[: 256 * (number % 7)] + b"%d" % (number % 11) * 400
        picked = plain.pick(str(number), prompt=prompt)
        assert explained(asked, str(number), prompt=prompt)["choice"] == f"{picked}:8000"


def test_filter_that_left_an_endpoint_out_is_named(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    health = picker.endpoint("b").health
    health.pause, health.paused_until = 1.0, picker.clock() + 1
    told = explained(picker, "1")
    assert told["filters"] == [{"name": "healthy-filter", "in": 3, "out": 2}]
    assert told["candidates"][-1] == {"endpoint": "b:8000", "leftOutBy": "healthy-filter"}


def test_only_endpoint_is_told_without_scores(picker: Picker) -> None:
    picker.serve("a")
    told = explained(picker, "1", prompt=PROMPT)
    assert (told["why"], told["candidates"]) == ("filters left one", [{"endpoint": "a:8000"}])


def test_refusal_is_told() -> None:
    none_fits = PluginSpec("label-selector-filter", parameters={"match_labels": {"zone": "none"}})
    picker = Picker(plugins=(none_fits,), profile=((none_fits.type, 1.0),))
    picker.serve("a", "b")
    told = explained(picker, "1")
    assert (told["outcome"], told["why"], told["choice"]) == ("endpoints_filtered_out", "filters left none", None)
    assert told["filters"][-1] == {"name": "label-selector-filter", "in": 2, "out": 0}


def test_retry_tells_what_failed_and_that_it_is_a_fallback() -> None:
    spec = PluginSpec("max-score-picker", parameters={"max_num_of_endpoints": 3})
    picker = Picker(plugins=(spec,), profile=(("max-score-picker", 1.0),))
    picker.serve("a", "b", "c", "d")
    first = explained(picker, "1")
    told = explained(picker, "1", tried=f"{first['choice']}=closed;")
    assert told["tried"] == [f"{first['choice']}=closed"]
    assert (told["why"], told["choice"]) == ("a fallback of the first answer", first["fallbacks"][0])


def test_names_of_a_policy_tell_plugins_apart() -> None:
    specs = (
        PluginSpec("queue-scorer", "busy"),
        PluginSpec("random-picker", "any"),
    )
    picker = Picker(plugins=specs, profile=(("busy", 2.0), ("any", 1.0)))
    picker.serve("a", "b")
    told = explained(picker, "1")
    assert (told["weights"], told["why"]) == ({"busy": 2.0}, "any of 2")
    assert all(one["total"] == 2 * one["scores"]["busy"] for one in told["candidates"])


def test_enormous_weights_are_told_in_json() -> None:
    specs = (PluginSpec("queue-scorer", "busy"), PluginSpec("kv-cache-utilization-scorer", "full"))
    picker = Picker(plugins=specs, profile=(("busy", 1e308), ("full", 1e308)))
    picker.serve("a", "b")
    one = request_of("1", trace=Trace())
    picked = picker.director.pick(one)
    assert one.trace is not None
    assert not isinstance(picked, Refusal)
    told = msgspec.json.decode(explanation(one, one.trace, outcome="picked", chosen=picked))
    assert [candidate["total"] for candidate in told["candidates"]] == [sys.float_info.max] * 2


@pytest.mark.parametrize("count", [1, 17, 200])
def test_candidates_are_bounded_and_the_rest_is_counted(picker: Picker, count: int) -> None:
    picker.serve(*(f"endpoint-{n}" for n in range(count)))
    told = explained(picker, "1", prompt=PROMPT)
    assert len(told["candidates"]) <= MOST_CANDIDATES
    assert len(told["candidates"]) + told["leftOut"] == count
    assert told["candidates"][0]["endpoint"] == told["choice"]


def test_explanation_of_many_plugins_stays_short() -> None:
    specs = tuple(PluginSpec("queue-scorer", f"{'scorer' * 20}{n}\N{SNOWMAN}\n") for n in range(60))
    picker = Picker(plugins=specs, profile=tuple((spec.name, 1.0) for spec in specs))
    picker.serve("a", "b")
    assert explained(picker, "1")["choice"] in ("a:8000", "b:8000")


@given(
    backlog=st.integers(0, 10**6),
    count=st.integers(0, 20),
    slots=st.integers(1, 8),
    slowness=st.floats(0.25, 4.0),
    size=st.integers(0, 20_000),
    foreign=st.integers(0, 5),
    adapter=st.sampled_from(["", "lora"]),
)
def test_terms_add_up_to_the_score(
    backlog: int, count: int, slots: int, slowness: float, size: int, foreign: int, adapter: str
) -> None:
    picker = Picker()
    picker.serve("a", "b")
    for number in range(count):
        picker.pick(str(number))
    picker.read("a", running=foreign)
    endpoint = picker.endpoint("a")
    endpoint.backlog, endpoint.slots = backlog, slots
    endpoint.worked(slowness)
    endpoint.max_adapters = 0
    pool = picker.table.pools["llm/gpu"]
    scorer = ExpectedTimeScorer(picker.surroundings(pool))
    request: PickRequest = request_of("x", prompt=b"x" * size)
    request.adapter = adapter
    scores = scorer.score(request, pool.endpoints, now=picker.clock())
    for score, terms in zip(scores, scorer.terms(request, pool.endpoints, scores, now=picker.clock()), strict=True):
        assert sum(terms.values()) == pytest.approx(1 / score - 1, abs=1e-9)
