"""Promises about many requests: minutes of load in seconds, on the clock of simulated pods."""

import random
from collections.abc import Callable
from itertools import cycle

import pytest

from .virtual import PODS, poisson, run


def _one_beginning_of(count: int) -> Callable[[random.Random], bytes]:
    """Prompts that begin with one of so many texts of 1,500 tokens, of which a pod can hold 32."""
    beginnings = [random.Random(number).randbytes(6000) for number in range(count)]
    return lambda rng: rng.choice(beginnings) + rng.randbytes(800)


def _nothing_shared(rng: random.Random) -> bytes:
    return rng.randbytes(4 * rng.randint(100, 2500))


@pytest.mark.parametrize(("beginnings", "rate"), [(20, 20), (40, 10), (40, 15)])
def test_three_replicas_hit_the_caches_as_one_does(beginnings: int, rate: float) -> None:
    arrivals = poisson(1500, rate=rate, seed=3, prompt=_one_beginning_of(beginnings))
    one, three = run(arrivals), run(arrivals, replicas=3)
    assert one.hit_share > 0.8
    assert one.hit_share - three.hit_share <= 0.03


def test_what_is_cached_is_used() -> None:
    arrivals = poisson(1500, rate=15, seed=3, prompt=_one_beginning_of(60))
    turns = cycle(PODS)
    spread = run(arrivals, policy=lambda _: next(turns))
    picked = run(arrivals)
    assert picked.hit_share > 2 * spread.hit_share
    assert picked.first_byte(0.9) < spread.first_byte(0.9) / 2


@pytest.mark.parametrize("rate", [6, 12])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_nothing_is_shared_taking_turns_is_no_better(seed: int, rate: float) -> None:
    arrivals = poisson(800, rate=rate, seed=seed, prompt=_nothing_shared)
    turns = cycle(PODS)
    spread = run(arrivals, policy=lambda _: next(turns))
    picked = run(arrivals)
    assert picked.first_byte(0.5) <= 1.01 * spread.first_byte(0.5)
    assert picked.first_byte(0.9) <= 1.01 * spread.first_byte(0.9)
