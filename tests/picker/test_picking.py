"""Which endpoint is picked, and what is counted, as seen from outside."""

import random
from collections import Counter

import pytest

from controller.picker.chunks import chunk_hashes

from .conftest import Picker


def test_burst_between_scrapes_spreads(picker: Picker) -> None:
    picker.serve("a", "b", "c", "d")
    for name in "abcd":
        picker.read(name)
    assert Counter(picker.pick(str(n)) for n in range(40)) == dict.fromkeys("abcd", 10)


def test_only_misses_at_concurrency_1_use_all_pods(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    picks: Counter[str] = Counter()
    for n in range(300):
        for name in "abc":
            picker.read(name)
        picks[name := picker.pick(str(n))] += 1
        picker.complete(str(n), endpoint=name)
    assert all(70 < picks[name] < 130 for name in "abc")


def test_only_misses_use_all_pods_however_much_each_has_indexed(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    rng = random.Random(1)
    for _ in range(300):
        # What one pod alone was sent before.
        picker.endpoint("a").prefixes.remember(chunk_hashes(rng.randbytes(4000), root=0))
    picks: Counter[str] = Counter()
    for n in range(300):
        picks[name := picker.pick(str(n), prompt=rng.randbytes(4000), is_streamed=True)] += 1
        picker.first_byte(str(n), 0.2)
        picker.complete(str(n), endpoint=name, duration=0.5)
    assert all(70 < picks[name] < 130 for name in "abc")
    # Load decides, not the index.
    busy = [picker.pick(f"busy{n}", prompt=rng.randbytes(40_000), is_streamed=True) for n in range(2)]
    assert picker.pick("last", prompt=rng.randbytes(4000)) not in busy


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"running": 1}, {"running": 2}),
        ({"running": 4}, {"running": 2, "waiting": 2}),
        ({}, {"waiting": 1}),
    ],
)
def test_requests_from_elsewhere_count(picker: Picker, a: dict[str, int], b: dict[str, int]) -> None:
    picker.serve("a", "b")
    picker.read("a", **a)
    picker.read("b", **b)
    assert picker.pick("1") == "a"


def test_own_requests_in_a_reading_are_not_counted_twice(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a")
    picker.read("b")
    first = picker.pick("1")
    other = "b" if first == "a" else "a"
    picker.read(first, running=1)
    picker.read(other, running=2)
    assert picker.pick("2") == first


def test_queue_shrinks_with_completions_before_the_next_scrape(picker: Picker) -> None:
    picker.serve("a")
    for n in range(6):
        picker.pick(str(n))
    picker.serve("a", "b")
    picker.read("a", running=2, waiting=4)
    picker.read("b", running=3)
    for n in range(5):
        picker.complete(str(n), endpoint="a")
    assert picker.pick("x") == "a"


def test_pod_that_is_not_read_any_more_is_avoided(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a")
    picker.clock.pass_(3.5)
    picker.read("b", running=50)
    assert {picker.pick(str(n)) for n in range(20)} == {"b"}


def test_when_all_readings_are_old_nobody_is_penalised(picker: Picker) -> None:
    picker.serve("a", "b")
    picker.read("a", running=50)
    picker.read("b")
    picker.clock.pass_(60)
    assert Counter(picker.pick(str(n)) for n in range(20)) == {"a": 10, "b": 10}


def test_when_most_readings_are_old_the_few_fresh_are_not_overrun(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    for name in "abc":
        picker.read(name)
    picker.clock.pass_(3.5)
    picker.read("a")
    assert Counter(picker.pick(str(n)) for n in range(30)) == {"a": 10, "b": 10, "c": 10}


def test_pool_without_any_reading_is_served_by_counting(picker: Picker) -> None:
    picker.serve("a", "b")
    assert Counter(picker.pick(str(n)) for n in range(10)) == {"a": 5, "b": 5}


def test_pool_is_not_ready_before_a_file_was_read(picker: Picker) -> None:
    assert picker.pick("1") == "picker_not_ready"


@pytest.mark.parametrize(("pool", "outcome"), [("llm/none", "pool_unknown"), ("llm/gpu", "no_endpoints")])
def test_pool_that_cannot_serve(picker: Picker, pool: str, outcome: str) -> None:
    picker.serve()
    assert picker.pick("1", pool=pool) == outcome


def test_unknown_pool_names_add_no_time_series(picker: Picker) -> None:
    picker.serve("a")
    for n in range(100):
        picker.pick(str(n), pool=f"invented/{n}")
    assert {pool for pool, _ in picker.director.picks} == {""}


def test_retry_goes_to_an_endpoint_that_was_not_tried(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    first = picker.pick("1")
    second = picker.pick("1", tried=f"{first}:8000=unreachable;")
    assert first != second
    assert (picker.count(first), picker.count(second)) == (0, 1)


@pytest.mark.parametrize(
    ("tried", "outcome"),
    [
        ("a:8000=timeout;", "endpoint_timed_out"),
        ("a:8000=unreachable;b:8000=unreachable;c:8000=unreachable;", "endpoints_failed"),
        ("a:8000=unreachable;b:8000=unreachable;", "c"),
        ("a:8000=unreachable;b:8000=closed;", "c"),
    ],
)
def test_what_is_tried_again(picker: Picker, tried: str, outcome: str) -> None:
    picker.serve("a", "b", "c")
    assert picker.pick("1", tried=tried) == outcome


def test_no_fourth_try_in_a_large_pool(picker: Picker) -> None:
    picker.serve("a", "b", "c", "d")
    assert picker.pick("1", tried="a:8000=unreachable;b:8000=unreachable;c:8000=unreachable;") == "endpoints_failed"


def test_every_endpoint_tried_in_a_small_pool(picker: Picker) -> None:
    picker.serve("a")
    assert picker.pick("1", tried="a:8000=unreachable;") == "endpoints_failed"


def test_endpoint_of_another_pool_is_never_picked(picker: Picker) -> None:
    picker.serve("a", pool="llm/cpu")
    assert picker.pick("1", pool="llm/gpu") == "pool_unknown"
    assert picker.pick("2", pool="llm/cpu", tried="z:1=unreachable;") == "a"
