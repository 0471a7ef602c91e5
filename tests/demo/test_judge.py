import random
from collections import Counter
from math import comb

import pytest

from controller.demo import judge
from controller.demo.judge import Answer, bounds, streak

SHARES = (("gpu", 0.9), ("cpu", 0.1))
PODS = ("gpu-0", "gpu-1", "gpu-2")
LIVE = "live files=routes.yaml milliseconds=41.5"
CHANGED = "changed: HTTPRoute demo/canary: spec.rules[0].backendRefs[0].weight 90 -> 0"


def _answers(*pools: str, status: int = 200) -> list[Answer]:
    """One for each pool, sent a tenth of a second after the other."""
    return [Answer(str(number), status, pool, begun=number / 10) for number, pool in enumerate(pools)]


@pytest.mark.parametrize(
    ("answers", "holds"),
    [
        (_answers("cpu", "cpu"), True),
        (_answers("cpu", "gpu"), False),
        (_answers("cpu", ""), False),
        (_answers("cpu", status=502), False),
        ([], False),
    ],
)
def test_answers_come_from_one_pool(answers: list[Answer], holds: bool) -> None:
    verdict = judge.from_pool("s", "a", answers, pool="cpu", statuses={200: "served", 501: "no audio"})
    assert verdict.holds is holds


def test_the_status_of_the_model_server_is_told() -> None:
    verdict = judge.from_pool("s", "a", _answers("cpu", status=501), pool="cpu", statuses={501: "no audio"})
    assert (verdict.holds, verdict.seen) == (True, "cpu 1; status 501 no audio")


@pytest.mark.parametrize(
    ("gpu", "cpu", "holds"), [(180, 20, True), (100, 100, False), (20, 180, False), (200, 0, False)]
)
def test_split_is_that_of_the_weights(gpu: int, cpu: int, holds: bool) -> None:
    answers = _answers(*["gpu"] * gpu, *["cpu"] * cpu)
    assert judge.split("s", "a", answers, shares=SHARES).holds is holds


def test_split_fails_with_an_answer_from_elsewhere() -> None:
    assert not judge.split("s", "a", _answers(*["gpu"] * 180, *["cpu"] * 19, ""), shares=SHARES).holds


def test_split_fails_with_an_answer_that_failed() -> None:
    answers = _answers(*["gpu"] * 180, *["cpu"] * 19) + _answers("cpu", status=503)
    assert not judge.split("s", "a", answers, shares=SHARES).holds


@pytest.mark.parametrize("count", [10, 200, 300])
def test_bounds_leave_as_little_as_asked_for(count: int) -> None:
    low, high = bounds(count, 0.9, chance=1e-5)
    weights = [comb(count, hits) * 9**hits for hits in range(count + 1)]
    total = 10**count
    assert sum(weights[:low]) / total <= 5e-6 < sum(weights[: low + 1]) / total
    assert sum(weights[high + 1 :]) / total <= 5e-6 < sum(weights[high:]) / total


def test_bounds_hold_for_draws() -> None:
    rng = random.Random(7)
    low, high = bounds(300, 0.9, chance=1e-5)
    assert all(low <= sum(rng.random() < 0.9 for _ in range(300)) <= high for _ in range(1000))


@pytest.mark.parametrize(
    ("served", "holds"),
    [
        (Counter({"gpu-0": 1, "gpu-1": 2, "gpu-2": 3}), True),
        (Counter({"gpu-0": 1, "gpu-1": 2}), False),
        (Counter({"gpu-0": 1, "gpu-1": 2, "gpu-2": 3, "": 1}), False),
    ],
)
def test_every_pod_is_used(served: Counter[str], holds: bool) -> None:
    assert judge.all_used("s", pods=PODS, served=served).holds is holds


@pytest.mark.parametrize(
    ("busy", "served", "holds"),
    [
        ("gpu-0", {"gpu-1": 4, "gpu-2": 6}, True),
        ("gpu-0", {"gpu-1": 10}, True),
        ("gpu-0", {"gpu-0": 1, "gpu-1": 9}, False),
        ("gpu-0", {"cpu-0": 1, "gpu-1": 9}, False),
        ("gpu-0", {}, False),
        ("", {"gpu-1": 10}, False),
    ],
)
def test_a_busy_pod_is_spared(busy: str, served: dict[str, int], holds: bool) -> None:
    assert judge.spared("s", pool="gpu", pods=PODS, busy=busy, served=Counter(served)).holds is holds


@pytest.mark.parametrize(("events", "is_whole", "holds"), [(40, True, True), (1, True, False), (40, False, False)])
def test_a_stream_comes_in_pieces(events: int, is_whole: bool, holds: bool) -> None:
    assert judge.streamed("s", pod="gpu-0", events=events, is_whole=is_whole).holds is holds


def test_streak_is_as_rare_as_asked_for() -> None:
    assert [streak(share, chance=1e-5) for share in (0.1, 0.5)] == [6, 17]


@pytest.mark.parametrize(
    ("answers", "edited", "seen"),
    [
        (_answers("gpu", "cpu", "gpu", "cpu", "cpu", "cpu"), 0.0, "from chat 4 on, after 300 ms; 0 failed"),
        (_answers("cpu", "cpu", "cpu"), -0.1, "from chat 1 on, after 100 ms; 0 failed"),
    ],
)
def test_a_change_is_live_from_the_first_answer_of_an_unbroken_row(
    answers: list[Answer], edited: float, seen: str
) -> None:
    verdict = judge.went_live("s", answers, asked="a", pool="cpu", edited=edited, length=3)
    assert (verdict.holds, verdict.seen) == (True, seen)


@pytest.mark.parametrize(
    ("answers", "edited"),
    [
        (_answers("gpu", "cpu", "cpu"), 0.0),
        (_answers("cpu", "cpu", "cpu", "gpu"), 0.0),
        (_answers("gpu", "cpu", "cpu", "cpu"), -60.0),
        (_answers("cpu", "cpu", "cpu") + _answers("", status=502) + _answers("cpu", "cpu", "cpu"), 0.0),
        ([], 0.0),
    ],
    ids=["too few", "old pool again", "too late", "one failed", "nothing asked"],
)
def test_a_change_is_not_live(answers: list[Answer], edited: float) -> None:
    assert not judge.went_live("s", answers, asked="a", pool="cpu", edited=edited, length=3).holds


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ((LIVE, CHANGED), "routes.yaml, weight 90 -> 0, 41.5 ms"),
        ((LIVE,), "routes.yaml, no change, 41.5 ms"),
        ((CHANGED,), "no file, weight 90 -> 0, no time"),
        (("live files=pools.yaml milliseconds=1.0", CHANGED), "no file, weight 90 -> 0, no time"),
    ],
)
def test_the_log_names_file_change_and_time(lines: tuple[str, ...], seen: str) -> None:
    verdict = judge.logged("s", lines, file="routes.yaml", change="weight 90 -> 0")
    assert (verdict.holds, verdict.seen) == ("no " not in seen, seen)
