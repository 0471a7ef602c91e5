"""The parts of a scheduling profile: filters narrow the endpoints, scorers rate them, a picker chooses.

A part sees all endpoints in one call, so that a pick costs a few calls and flat loops, whatever the number of
endpoints.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest


class Filter(Protocol):
    """Leaves out endpoints."""

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """The endpoints that remain, in their order; all of them rather than none."""
        ...


class Scorer(Protocol):
    """Rates endpoints."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """One score in [0, 1] for each endpoint, in their order; higher is better."""
        ...


class Picker(Protocol):
    """Chooses one endpoint."""

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Endpoint:
        """One of the endpoints, of which there is at least one; scores are in their order."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What parts may need to be made."""

    staleness: float
    """Seconds after which a reading is too old."""
    rng: random.Random
