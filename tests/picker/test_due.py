"""Requests by the time at which they are due: what is taken, when, and that nothing is kept."""

import random

from controller.picker.due import STEP, Due
from controller.picker.endpoints import Endpoint, Sent
from controller.picker.memory import PoolMemory
from controller.pools import PoolEndpoint

ENDPOINT = Endpoint(PoolEndpoint(address="10.0.0.1:8000", name="llm/one"))


def sent() -> Sent:
    return Sent(endpoint=ENDPOINT, at=0.0, memory=PoolMemory())


def test_a_request_is_taken_once_within_a_step_of_its_time() -> None:
    due = Due()
    one = sent()
    due.add(one, 5.0)
    assert list(due.take(5.0 - STEP)) == []
    assert list(due.take(5.0 + STEP)) == [one]
    assert list(due.take(9.0)) == []


def test_dropped_requests_are_neither_taken_nor_kept() -> None:
    due = Due()
    one, two = sent(), sent()
    due.add(one, 5.0)
    due.add(two, 5.0)
    due.drop(one)
    assert len(due) == 1
    assert list(due.take(6.0)) == [two]
    due.drop(two)
    assert len(due) == 0


def test_any_order_of_times_is_taken_in_time() -> None:
    rng = random.Random(7)
    due = Due()
    times = {sent(): rng.uniform(0.0, 10.0) for _ in range(1000)}
    for one, at in times.items():
        due.add(one, at)
    now = 0.0
    taken = {}
    while now < 11.0:
        now += rng.uniform(0.0, 0.05)
        for one in due.take(now):
            assert one not in taken
            taken[one] = now
            # Never early; late by no more than a step and the time since it was asked before.
            assert times[one] <= now <= times[one] + STEP + 0.05
    assert taken.keys() == times.keys()
