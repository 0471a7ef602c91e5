"""The plugins' formulas."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from controller.picker.answers import Refusal
from controller.picker.endpoints import Endpoint
from controller.picker.scheduling.profile import InvalidProfile, PluginSpec, build_profile
from controller.picker.scheduling.registry import PLUGINS, Kind
from controller.plugins.parameters import LabelRequirement, UtilizationCondition

from .conftest import Picker, request_of

PROMPT = b"x" * 8192


def made(picker: Picker, type_: str, **parameters: Any) -> Any:  # Any: a filter or scorer, and fields of it
    return PLUGINS[type_].make(picker.surroundings(picker.table.pools["llm/gpu"]), **parameters)


def scores(picker: Picker, type_: str, *, asked: dict[str, Any] | None = None, **parameters: Any) -> list[float]:
    """Scores of the pool's endpoints."""
    scorer = made(picker, type_, **parameters)
    request = request_of("x", **(asked or {}))
    return list(scorer.score(request, picker.table.pools["llm/gpu"].endpoints, now=picker.clock()))


def kept(picker: Picker, type_: str, *, asked: dict[str, Any] | None = None, **parameters: Any) -> str:
    """Names of the endpoints that a filter keeps."""
    request = request_of("x", **(asked or {}))
    part = made(picker, type_, **parameters)
    left: Sequence[Endpoint] = part.filter(request, picker.table.pools["llm/gpu"].endpoints, now=picker.clock())
    return "".join(endpoint.name[-1] for endpoint in left)


@pytest.fixture
def pool(picker: Picker) -> Picker:
    """Three endpoints, from idle to busy."""
    picker.serve("a", "b", "c")
    picker.read("a", kv_use=0.0)
    picker.read("b", running=2, waiting=1, kv_use=0.5)
    picker.read("c", running=4, waiting=4, kv_use=0.75)
    return picker


@pytest.mark.parametrize(
    ("scorer", "parameters", "expected"),
    [
        ("queue-scorer", {}, [1, 0.75, 0]),
        ("running-requests-size-scorer", {}, [1, 0.5, 0]),
        ("kv-cache-utilization-scorer", {}, [1, 0.5, 0.25]),
        ("load-aware-scorer", {"threshold": 2}, [0.5, 0.25, 0]),
        ("active-request-scorer", {}, [1, 1, 1]),
        ("token-load-scorer", {}, [1, 1, 1]),
        ("prefix-cache-scorer", {}, [0, 0, 0]),
        ("lora-affinity-scorer", {}, [1, 1, 1]),
        ("latency-scorer", {"composite_kv_weight": 0, "composite_prefix_weight": 0}, [1, 0.75, 0]),
        ("context-length-aware", {}, [0.5, 0.5, 0.5]),
        ("session-affinity-scorer", {}, [0, 0, 0]),
    ],
)
def test_scores_by_reading(pool: Picker, scorer: str, parameters: dict[str, Any], expected: list[float]) -> None:
    assert scores(pool, scorer, **parameters) == pytest.approx(expected)


@pytest.mark.parametrize("scorer", ["queue-scorer", "running-requests-size-scorer", "load-aware-scorer"])
def test_burst_between_scrapes_counts(pool: Picker, scorer: str) -> None:
    before = scores(pool, scorer)[0]
    picked = {pool.pick(str(n)) for n in range(6)}
    assert picked == {"a"}
    assert scores(pool, scorer)[0] < before


@pytest.mark.parametrize(
    "scorer", ["queue-scorer", "running-requests-size-scorer", "load-aware-scorer", "kv-cache-utilization-scorer"]
)
def test_pod_silent_since_it_was_idle_attracts_nothing(pool: Picker, scorer: str) -> None:
    pool.clock.pass_(4)
    pool.read("b", running=2, waiting=1, kv_use=0.5)
    pool.read("c", running=4, waiting=4, kv_use=0.75)
    after = scores(pool, scorer)
    assert after[0] == min(after)


def test_requests_in_flight(pool: Picker) -> None:
    for n, name in enumerate("bbcccc"):
        endpoint = pool.endpoint(name)
        endpoint.open[str(n)] = endpoint.open.get("", None)  # type: ignore[assignment]  # only their number counts
    assert scores(pool, "active-request-scorer") == [1, 0.5, 0]
    assert scores(pool, "active-request-scorer", idle_threshold=2, max_busy_score=0.5) == [1, 1, 0]


def test_tokens_in_flight(pool: Picker) -> None:
    pool.endpoint("b").backlog = 4096
    pool.endpoint("c").prefixes.remember(request_of("x", prompt=PROMPT).hashes)
    asked = {"prompt": PROMPT}
    assert scores(pool, "token-load-scorer", asked=asked, queue_threshold_tokens=4096) == [0.5, 0.25, 1]


def test_prefix_cache(pool: Picker) -> None:
    pool.endpoint("b").prefixes.remember(request_of("x", prompt=PROMPT[:4096]).hashes)
    pool.endpoint("c").prefixes.remember(request_of("x", prompt=PROMPT).hashes)
    asked = {"prompt": PROMPT}
    assert scores(pool, "prefix-cache-scorer", asked=asked) == [0, 0.5, 1]
    long = {"match_length_weight": 1.0, "match_length_scale_tokens": 2048}
    assert scores(pool, "prefix-cache-scorer", asked=asked, **long) == [0, 0.25, 1]


def test_cold_prompts_go_where_none_went_for_longest(pool: Picker) -> None:
    pool.plugins, pool.profile = (PluginSpec("no-hit-lru-scorer"),), (("no-hit-lru-scorer", 1.0),)
    pool.serve("a", "b", "c")
    picks = "".join(pool.pick(str(n), prompt=b"%04d" % n * 500) for n in range(9))
    assert sorted(picks[:3]) == ["a", "b", "c"]
    assert picks[:3] == picks[3:6] == picks[6:]
    assert scores(pool, "no-hit-lru-scorer", asked={"prompt": b"0000" * 500}) == [0.5, 0.5, 0.5]


def test_one_endpoint_scores_1_for_a_cold_prompt(picker: Picker) -> None:
    picker.serve("a")
    assert scores(picker, "no-hit-lru-scorer", asked={"prompt": PROMPT}) == [1]


def test_lora_affinity(picker: Picker) -> None:
    picker.serve("a", "b", "c", "d")
    picker.read("a", running_adapters=("x", "y"), max_adapters=2)
    picker.read("b", running_adapters=("y",), max_adapters=2)
    picker.read("c", running_adapters=("y", "z"), waiting_adapters=("x",), max_adapters=2)
    picker.read("d", running_adapters=("y", "z"), max_adapters=2)
    assert scores(picker, "lora-affinity-scorer", asked={"adapter": "x"}) == [1, 0.8, 0.6, 0]


@pytest.mark.parametrize(
    ("label", "tokens", "score"),
    [
        (None, 100, 0.5),
        ("nonsense", 100, 0),
        ("5-2", 3, 0),
        ("100-100", 100, 1),
        ("0-10000", 0, 0.3 + 0.7 * (0.7 * 0.5 + 0.3)),
        ("0-10000", 10_000, 0.3 + 0.7 * (0.7 * 0.5)),
        ("0-1000", 2000, 0.15),
        ("5000-9000", 4000, 0.15),
    ],
)
def test_context_length(picker: Picker, label: str | None, tokens: int, score: float) -> None:
    picker.serve("a")
    picker.endpoint("a").labels = {"llm-d.ai/context-length-range": label} if label else {}
    asked = {"prompt": b"x" * 4 * tokens}
    assert scores(picker, "context-length-aware", asked=asked) == [pytest.approx(score)]


def test_context_length_as_a_filter(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    picker.endpoint("a").labels = {"l": "0-10"}
    picker.endpoint("b").labels = {"l": "11-99"}
    asked = {"prompt": b"x" * 200}
    assert kept(picker, "context-length-aware", asked=asked, label="l", enable_filtering=True) == "bc"
    assert kept(picker, "context-length-aware", asked=asked, label="l") == "abc"


@pytest.mark.parametrize(
    ("labels", "expressions", "expected"),
    [
        ({}, (), "abc"),
        ({"gpu": "h100"}, (), "a"),
        ({"gpu": "none"}, (), ""),
        ({}, ({"key": "gpu", "operator": "In", "values": ("h100", "l4")},), "ab"),
        ({}, ({"key": "gpu", "operator": "NotIn", "values": ("h100",)},), "bc"),
        ({}, ({"key": "gpu", "operator": "Exists"},), "ab"),
        ({}, ({"key": "gpu", "operator": "DoesNotExist"},), "c"),
    ],
)
def test_label_selector(
    picker: Picker, labels: dict[str, str], expressions: tuple[dict[str, Any], ...], expected: str
) -> None:
    picker.serve("a", "b", "c")
    picker.endpoint("a").labels = {"gpu": "h100"}
    picker.endpoint("b").labels = {"gpu": "l4"}
    requirements = tuple(LabelRequirement(**one) for one in expressions)
    assert kept(picker, "label-selector-filter", match_labels=labels, match_expressions=requirements) == expected


@pytest.mark.parametrize(
    ("metric", "most", "fallback", "expected"),
    [
        ("waiting-queue", 1, False, "ab"),
        ("running-requests", 0, False, "a"),
        ("kv-cache-utilization", 0.6, False, "ab"),
        ("active-requests", 0, False, "abc"),
        ("waiting-queue", -1, False, ""),
        ("waiting-queue", -1, True, "abc"),
    ],
)
def test_utilization(pool: Picker, metric: Any, most: float, fallback: bool, expected: str) -> None:  # Any: a literal
    conditions = (UtilizationCondition.model_construct(metric=metric, max_value=most),)
    assert kept(pool, "utilization-filter", conditions=conditions, fallback_on_empty=fallback) == expected


@pytest.mark.parametrize(
    ("depth", "kv_use", "headroom", "expected"),
    [(5, 0.8, 0.0, "abc"), (4, 0.8, 0.0, "ab"), (5, 0.7, 0.0, "ab"), (5, 0.7, 0.1, "abc"), (1, 0.5, 0.0, "a")],
)
def test_utilization_detector_as_a_filter(
    pool: Picker, depth: int, kv_use: float, headroom: float, expected: str
) -> None:
    thresholds: dict[str, Any] = {
        "queue_depth_threshold": depth,
        "kv_cache_util_threshold": kv_use,
        "headroom": headroom,
    }  # Any: fields of a filter
    assert kept(pool, "utilization-detector", **thresholds) == expected


def test_utilization_detector_leaves_all_where_all_are_full(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a", running=4, waiting=9)
    picker.read("b", running=4, waiting=9)
    assert kept(picker, "utilization-detector") == "ab"


def test_concurrency_detector_as_a_filter(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.pick("1", prompt=b"x" * 4000)
    (busy,) = (name for name in "ab" if picker.count(name))
    idle = "ab".replace(busy, "")
    assert kept(picker, "concurrency-detector", max_concurrency=1) == idle
    assert kept(picker, "concurrency-detector", max_concurrency=1, headroom=1.0) == "ab"
    tokens: dict[str, Any] = {"concurrency_mode": "tokens", "max_token_concurrency": 1000}  # Any: as above
    assert kept(picker, "concurrency-detector", **tokens) == idle


@pytest.mark.parametrize(
    ("filter_", "parameters", "status", "outcome"),
    [
        ("label-selector-filter", {"match_labels": {"gpu": "h100"}}, 503, "endpoints_filtered_out"),
        ("concurrency-detector", {"max_concurrency": 1}, 429, "endpoints_busy"),
        (
            "utilization-filter",
            {"conditions": (UtilizationCondition(metric="active-requests", maxValue=0),)},
            429,
            "endpoints_busy",
        ),
    ],
)
def test_only_filters_of_busy_endpoints_refuse_with_429(
    picker: Picker, filter_: str, parameters: dict[str, Any], status: int, outcome: str
) -> None:
    picker.serve("a")
    picker.pick("runs")
    picker.plugins = (PluginSpec(filter_, parameters=parameters),)
    picker.profile = ((filter_, 1.0),)
    picker.serve("a")
    refused = picker.director.pick(request_of("1"))
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.outcome.value, refused.retry_after) == (status, outcome, 1)
    assert len(picker.in_flight) == 1


def test_prefix_affinity_holds_until_it_costs_too_much(pool: Picker) -> None:
    pool.endpoint("c").prefixes.remember(request_of("x", prompt=PROMPT).hashes)
    asked = {"prompt": PROMPT + b"y" * 1000}
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked) == "c"
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked, affinity_threshold=0.99) == "abc"
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked, exploration_probability=1.0) == "abc"
    pool.endpoint("c").backlog = 4 * 15_928 * 19
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked) == "abc"
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked, max_ttft_penalty_ms=0) == "c"
    learned = {"ttft_source": "latencyPredictor", "max_ttft_penalty_ms": 1_000_000}
    assert kept(pool, "prefix-cache-affinity-filter", asked=asked, **learned) == "c"


def test_least_latency_is_learned(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    picker.endpoint("a").first_byte_time, picker.endpoint("a").byte_time = 0.1, 0.002
    picker.endpoint("b").first_byte_time, picker.endpoint("b").byte_time = 0.3, 0.001
    assert scores(picker, "latency-scorer") == pytest.approx([0.8, 0.2, 0.5])
    picker.endpoint("a").backlog = 40_000
    assert scores(picker, "latency-scorer")[0] == pytest.approx(0)


def test_latency_of_an_endpoint_is_that_of_its_streamed_answers(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", is_streamed=True)
    picker.first_byte("1", 0.2)
    picker.clock.pass_(1.2)
    picker.complete("1", endpoint="a", sent=1000)
    assert picker.endpoint("a").first_byte_time == 0.2
    assert picker.endpoint("a").byte_time == pytest.approx(0.001)


SCORES = (0.0, 0.25, 0.75)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [("random-picker", {"a": 333, "b": 333, "c": 333}), ("weighted-random-picker", {"b": 250, "c": 750})],
)
def test_random_pickers(picker: Picker, type_: str, expected: dict[str, int]) -> None:
    picker.serve("a", "b", "c")
    part = made(picker, type_)
    endpoints = picker.table.pools["llm/gpu"].endpoints
    counts = Counter(part.pick(request_of("x"), endpoints, SCORES)[0].name[-1] for _ in range(1000))
    assert counts.keys() == expected.keys()
    assert all(abs(counts[name] - count) < 60 for name, count in expected.items())


def test_without_any_score_the_weighted_picker_takes_any(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    part = made(picker, "weighted-random-picker")
    endpoints = picker.table.pools["llm/gpu"].endpoints
    assert len({part.pick(request_of("x"), endpoints, (0.0, 0.0, 0.0))[0].name for _ in range(50)}) == 3


@pytest.mark.parametrize("type_", [name for name, one in PLUGINS.items() if Kind.PICKER in one.kinds])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_picker_gives_ordered_fallbacks(picker: Picker, type_: str, count: int) -> None:
    picker.serve("a", "b", "c")
    part = made(picker, type_, max_num_of_endpoints=count)
    endpoints = picker.table.pools["llm/gpu"].endpoints
    chosen = part.pick(request_of("x"), endpoints, SCORES)
    assert len({endpoint.name for endpoint in chosen}) == count
    if type_ == "max-score-picker":
        assert "".join(endpoint.name[-1] for endpoint in chosen) == "cba"[:count]
    assert len(part.pick(request_of("x"), endpoints[:1], SCORES[:1])) == 1


@pytest.mark.parametrize("type_", [name for name, one in PLUGINS.items() if Kind.SCORER in one.kinds])
def test_scores_are_between_0_and_1(picker: Picker, type_: str) -> None:
    picker.serve("a", "b", "c", "d")
    picker.read("a")
    picker.read("b", running=10**9, waiting=10**9, kv_use=1.0)
    rng = random.Random(1)
    for n in range(200):
        name = picker.pick(str(n), prompt=rng.randbytes(rng.randrange(9000)), is_streamed=n % 2 == 0)
        picker.first_byte(str(n), rng.random() * 5)
        if n % 3:
            picker.complete(str(n), endpoint=name)
    for size in (0, 100, 100_000):
        found = scores(picker, type_, asked={"prompt": b"x" * size, "adapter": "l"})
        assert len(found) == 4
        assert all(0 <= score <= 1 for score in found)


@pytest.mark.parametrize(
    ("plugins", "profile", "message"),
    [
        ((), (("queue", 1.0),), r"plugin queue: not among the plugins \(none\)"),
        ((PluginSpec("queue"),), (("queue", 1.0),), "plugin type queue: unknown, there are active-request-scorer, "),
        (
            (PluginSpec("load-aware-scorer", parameters={"limit": 1}),),
            (("load-aware-scorer", 1.0),),
            "parameter limit of load-aware-scorer: unknown, there are threshold",
        ),
        (
            (PluginSpec("max-score-picker", parameters={"max_num_of_endpoints": 4}),),
            (("max-score-picker", 1.0),),
            "max_num_of_endpoints 4: must be from 1 to 3",
        ),
        (
            (PluginSpec("max-score-picker"), PluginSpec("random-picker")),
            (("max-score-picker", 1.0), ("random-picker", 1.0)),
            "more than one picker",
        ),
    ],
)
def test_profile_that_names_what_there_is_not(
    picker: Picker, plugins: Sequence[PluginSpec], profile: Sequence[tuple[str, float]], message: str
) -> None:
    picker.serve("a")
    with pytest.raises(InvalidProfile, match=message):
        build_profile(plugins, profile, picker.surroundings(picker.table.pools["llm/gpu"]))


def test_failing_endpoints_are_left_out_of_every_profile(picker: Picker) -> None:
    picker.plugins, picker.profile = (PluginSpec("random-picker"),), (("random-picker", 1.0),)
    picker.serve("a", "b")
    picker.pick("1", tried="a:8000=closed;")
    assert {picker.pick(str(n)) for n in range(10, 30)} == {"b"}


class _LeavesNone:
    """A filter of a third party."""

    def __init__(self, is_about_load: bool) -> None:
        self.is_about_load = is_about_load

    def filter(self, request: object, endpoints: object, *, now: float) -> tuple[()]:
        return ()


@pytest.mark.parametrize(("is_about_load", "outcome"), [(True, "endpoints_busy"), (False, "endpoints_filtered_out")])
def test_filter_of_a_third_party_may_say_that_it_is_about_load(
    picker: Picker, is_about_load: bool, outcome: str
) -> None:
    picker.plugins = (PluginSpec("theirs", build=lambda surroundings: _LeavesNone(is_about_load)),)
    picker.profile = (("theirs", 1.0),)
    picker.serve("a")
    assert picker.pick("1") == outcome
