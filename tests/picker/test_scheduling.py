import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.pickers.by_score import MaxScorePicker
from controller.picker.scheduling.profile import PartNames, Profile

from .conftest import Picker

REQUEST = PickRequest("1", "llm/gpu", b"@serve", (), "POST", "/", 0)
SURROUNDINGS = Surroundings(staleness=3.0, rng=random.Random(1))


@dataclass(frozen=True)
class Constant:
    """Scores by position."""

    scores: tuple[float, ...]

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        return self.scores


@pytest.mark.parametrize(
    ("scorers", "expected"),
    [
        ((), [0, 0]),
        (((Constant((0.5, 1.0)), 1.0),), [0.5, 1.0]),
        (((Constant((0.5, 1.0)), 1.0), (Constant((1.0, 0.0)), 2.0)), [2.5, 1.0]),
    ],
)
def test_scores_are_added_by_weight(
    picker: Picker, scorers: tuple[tuple[Constant, float], ...], expected: list[float]
) -> None:
    picker.serve("a", "b")
    names = PartNames((), tuple("ab"[: len(scorers)]), "max-score-picker")
    profile = Profile(filters=(), scorers=scorers, picker=MaxScorePicker(SURROUNDINGS), names=names)
    assert list(profile.score(REQUEST, picker.table.endpoints, now=0)) == expected


def test_ties_are_broken_at_random(picker: Picker) -> None:
    picker.serve("a", "b", "c")
    chosen = MaxScorePicker(SURROUNDINGS)
    picks = {chosen.pick(REQUEST, picker.table.endpoints, [1.0, 0.5, 1.0])[0].name for _ in range(50)}
    assert picks == {"llm/a", "llm/c"}
