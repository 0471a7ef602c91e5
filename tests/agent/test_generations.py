"""The pause before a reload, by the generations of workers that still have streams."""

import pytest

from controller.agent.generations import FREE, LONGEST_PAUSE, Generations


def test_first_generations_hold_up_nothing() -> None:
    generations = Generations(is_alive=lambda process: True)
    for number in range(FREE):
        assert generations.pause(float(number)) == 0
        generations.retire(frozenset({number}), now=float(number))


@pytest.mark.parametrize(("beyond", "pause"), [(0, 1.0), (1, 2.0), (5, 32.0), (30, LONGEST_PAUSE)])
def test_each_generation_beyond_doubles_the_pause(beyond: int, pause: float) -> None:
    generations = Generations(is_alive=lambda process: True)
    for number in range(FREE + beyond):
        generations.retire(frozenset({number}), now=100.0)
    assert generations.pause(100.0) == pause
    assert generations.pause(100.25) == pause - 0.25
    assert generations.pause(100.0 + pause) == 0


def test_generation_counts_while_one_of_its_workers_lives() -> None:
    alive = {1, 2, 3}
    generations = Generations(is_alive=alive.__contains__)
    for number in range(FREE - 1):
        generations.retire(frozenset({1, 10 + number}), now=0.0)
    generations.retire(frozenset({2, 3}), now=0.0)
    alive.remove(2)
    assert generations.pause(0.5) == 0.5
    alive.remove(3)
    assert generations.pause(0.5) == 0


def test_changes_of_an_hour_leave_few_generations() -> None:
    now = 0.0
    ends: dict[int, float] = {}
    generations = Generations(is_alive=lambda process: ends[process] > now)
    most = 0
    for number in range(3600):
        now = float(number)
        if not generations.pause(now):
            # The hour that a worker has to end its streams.
            ends[number] = now + 3600
            generations.retire(frozenset({number}), now=now)
        most = max(most, sum(end > now for end in ends.values()))
    assert FREE < most < 25
