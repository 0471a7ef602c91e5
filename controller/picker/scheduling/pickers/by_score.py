"""Pickers: how scores become a choice."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings

MOST: Final = 3
"""One endpoint and two more: nginx follows no further retry."""


@dataclass(frozen=True)
class MaxScorePicker:
    """The highest scores; ties at random, so that replicas of the gateway do not all send to the first."""

    surroundings: Surroundings
    max_num_of_endpoints: int = 1

    def __post_init__(self) -> None:
        _check(self.max_num_of_endpoints)

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Sequence[Endpoint]:
        """See `Picker`."""
        rng = self.surroundings.rng
        if self.max_num_of_endpoints == 1:
            return (endpoints[_highest(scores, rng)],)
        # A few looks for the highest take a quarter of sorting many.
        left = list(scores)
        chosen = []
        for _ in range(min(self.max_num_of_endpoints, len(left))):
            place = _highest(left, rng)
            chosen.append(endpoints[place])
            left[place] = -math.inf
        return chosen


@dataclass(frozen=True)
class RandomPicker:
    """Any of them, whatever their scores."""

    surroundings: Surroundings
    max_num_of_endpoints: int = 1

    def __post_init__(self) -> None:
        _check(self.max_num_of_endpoints)

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Sequence[Endpoint]:
        """See `Picker`."""
        return self.surroundings.rng.sample(endpoints, min(self.max_num_of_endpoints, len(endpoints)))


@dataclass(frozen=True)
class WeightedRandomPicker:
    """At random, in proportion to the scores; without a score only where none has one.

    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir (A-Res).
    """

    surroundings: Surroundings
    max_num_of_endpoints: int = 1

    def __post_init__(self) -> None:
        _check(self.max_num_of_endpoints)

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Sequence[Endpoint]:
        """See `Picker`."""
        rng = self.surroundings.rng
        # The logarithm of U^(1/score): the power itself is 0 for most of a small score.
        keyed = [
            (math.log(1.0 - rng.random()) / score if score > 0 else -math.inf, rng.random(), place)
            for place, score in enumerate(scores)
        ]
        keyed.sort(reverse=True)
        return [endpoints[place] for _, _, place in keyed[: self.max_num_of_endpoints]]


def _highest(scores: Sequence[float], rng: random.Random) -> int:
    """The place of the highest score, one of them at random where several are as high."""
    highest = max(scores)
    if scores.count(highest) == 1:
        return scores.index(highest)
    best = [place for place, score in enumerate(scores) if score == highest]
    return best[int(rng.random() * len(best))]


def _check(count: int) -> None:
    if not 1 <= count <= MOST:
        raise ValueError(f"max_num_of_endpoints {count}: must be from 1 to {MOST}")
