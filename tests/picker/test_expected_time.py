"""The default rule, by its formula and by what it does."""

import random
from collections import Counter
from typing import Any

import pytest

from controller.picker.chunks import OFFSETS
from controller.picker.scheduling.scorers.expected_time import ExpectedTimeScorer

from .conftest import Picker, request_of

SHARED = b"system prompt " * 600
"""8,400 bytes: 32 chunks and a rest."""


def costs(picker: Picker, prompt: bytes = b"", **asked: Any) -> dict[str, float]:  # Any: fields of a request
    """What the rule expects of each endpoint, in seconds."""
    pool = picker.table.pools["llm/gpu"]
    scorer = ExpectedTimeScorer(picker.surroundings(pool))
    request = request_of("x", prompt=prompt, **asked)
    scores = scorer.score(request, pool.endpoints, now=picker.clock())
    return {one.name[-1]: 1 / score - 1 for one, score in zip(pool.endpoints, scores, strict=True)}


def send(picker: Picker, name: str, count: int, prompt: bytes = b"", **asked: Any) -> None:  # Any: as above
    """Have requests in flight at one endpoint."""
    others = [endpoint for endpoint in picker.table.endpoints if endpoint.name != f"llm/{name}"]
    for other in others:
        other.health.pause, other.health.paused_until = 1.0, picker.clock() + 1
    for n in range(count):
        assert picker.pick(f"{name}{len(picker.in_flight)}{n}", prompt=prompt, **asked) == name
    for other in others:
        other.health.pause = 0.0


def test_idle_endpoint_costs_the_prompt() -> None:
    picker = Picker()
    picker.serve("a")
    assert costs(picker, b"x" * 4000) == pytest.approx({"a": 1000 * 0.0002})


def test_formula() -> None:
    picker = Picker()
    picker.serve("a", "b")
    send(picker, "a", 3, SHARED, is_streamed=True)
    picker.first_byte("a00", 0.1)
    endpoint = picker.endpoint("a")
    endpoint.worked(2.0)
    prompt = SHARED[:8192] + b"y" * 4096
    novel = len(prompt) - 8192
    # The first was not cached; the second and third found all but the rest that is no whole chunk.
    assert endpoint.backlog == 2 * (len(SHARED) - 8192)
    own = novel / 4 * (1 + 0.3 * 3)
    expected = 0.0002 * 2.0 * (endpoint.backlog / 4 + own + 0.01 * 1.0 / 0.0002 * 3)
    assert costs(picker, prompt) == pytest.approx({"a": expected, "b": 0.0002 * len(prompt) / 4})


def test_beyond_its_slots_a_request_waits_for_one() -> None:
    picker = Picker()
    picker.serve("a")
    picker.read("a", running=2, waiting=1)
    assert picker.endpoint("a").slots == 2
    for n in range(3):
        picker.pick(str(n))
        picker.read("a", running=2, waiting=1)
        picker.endpoint("a").foreign = 0
    # Three in flight: their neighbourhood, and the wait for two of two slots.
    assert costs(picker) == pytest.approx({"a": 0.01 * 1.0 * 3 + 1.0 / 2 * 2})
    picker.read("a", running=3, waiting=0)
    assert picker.endpoint("a").slots == float("inf")


def test_cold_adapter_costs_its_loading_and_a_full_endpoint_more() -> None:
    picker = Picker()
    picker.serve("a", "b", "c")
    picker.read("a", running_adapters=("wanted",), max_adapters=2)
    picker.read("b", max_adapters=2)
    picker.read("c", running_adapters=("x", "y"), max_adapters=2)
    assert costs(picker, adapter="wanted") == pytest.approx({"a": 0, "b": 0.3, "c": 0.6})
    picker.table.digest_readings()
    send(picker, "c", 1, model="x")
    send(picker, "c", 1, model="y")
    in_flight = 0.01 * 2
    assert costs(picker, adapter="wanted")["c"] == pytest.approx(0.3 * (1 + 0.3 * 2) + 0.3 + 1.0 + in_flight)


def test_requests_with_a_prefix_stay_together_while_one_endpoint_can_bear_them(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    picks = set()
    for n in range(30):
        picks.add(name := picker.pick(str(n), prompt=SHARED + b"%d" % n * 20, is_streamed=True))
        picker.first_byte(str(n), 0.05)
        picker.complete(str(n), endpoint=name)
    assert len(picks) == 1


def test_hot_prefix_spreads_before_a_queue_forms(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    picks = Counter(picker.pick(str(n), prompt=SHARED + b"%d" % n * 50, is_streamed=True) for n in range(60))
    assert len(picks) == 3
    assert max(picks.values()) < 30


def test_busy_endpoint_keeps_what_it_has_and_takes_nothing_new(picker: Picker) -> None:
    picker.serve("a", "b")
    send(picker, "a", 5, SHARED, is_streamed=True)
    for n in range(5):
        picker.first_byte(f"a{n}{n}", 0.1)
    assert picker.pick("same", prompt=SHARED) == "a"
    assert picker.pick("new", prompt=b"n" * 8000) == "b"


def test_nothing_shared_spreads_evenly(picker: Picker) -> None:
    picker.serve("a", "b", "c", "d")
    picks = Counter(picker.pick(str(n), prompt=b"%d" % n * 1000, is_streamed=True) for n in range(80))
    assert set(picks.values()) <= set(range(14, 27))


def test_slow_endpoint_gets_less(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.endpoint("a").worked(2.0)
    picks = Counter(picker.pick(str(n), prompt=b"%d" % n * 1000, is_streamed=True) for n in range(60))
    assert picks["b"] > 1.3 * picks["a"]


def test_replicas_without_shared_state_agree_on_cold_prompts() -> None:
    agreed = 0
    replicas = [Picker(replicas=True), Picker(replicas=True)]
    for seed, one in enumerate(replicas):
        one.rng = random.Random(seed)
        one.serve(*"abcdef")
    for n in range(50):
        prompt = random.Random(n).randbytes(8000)
        picks = []
        for one in replicas:
            picks.append(name := one.pick(str(n), prompt=prompt))
            one.complete(str(n), endpoint=name)
        agreed += picks[0] == picks[1]
    assert agreed == 50


def test_replicas_do_not_send_to_a_much_busier_endpoint() -> None:
    picker = Picker(replicas=True)
    picker.serve("a", "b")
    send(picker, "a", 20, b"x" * 20_000, is_streamed=True)
    assert {picker.pick(str(n), prompt=random.Random(n).randbytes(4000)) for n in range(10)} == {"b"}


def test_chunks_that_are_matched_are_not_charged(picker: Picker) -> None:
    picker.serve("a")
    picker.pick("1", prompt=SHARED, is_streamed=True)
    picker.first_byte("1", 0.1)
    picker.complete("1", endpoint="a")
    picker.pick("2", prompt=SHARED, is_streamed=True)
    assert picker.endpoint("a").backlog == len(SHARED) - OFFSETS[32]
