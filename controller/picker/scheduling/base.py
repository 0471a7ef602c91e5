"""The parts of a scheduling profile: filters narrow the endpoints, scorers rate them, a picker chooses.

A part is made with `Surroundings` and its parameters as keyword arguments. It sees all endpoints in one call, so that a
pick costs a few calls and flat loops, whatever the number of endpoints. A part holds settings; what it learns lives in
the endpoints or in the pool's memory, so that a profile can be replaced while requests are in flight.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from controller.picker.endpoints import Endpoint
from controller.picker.memory import PoolMemory
from controller.picker.requests import PickRequest


class Filter(Protocol):
    """Leaves out endpoints."""

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """The endpoints that remain, in their order. Where none does, the request is refused."""
        ...


@runtime_checkable
class LoadFilter(Protocol):
    """A filter of endpoints that are busy, where others leave out what does not fit."""

    is_about_load: bool
    """Whether a request for which it leaves none may come again in a moment."""


class Scorer(Protocol):
    """Rates endpoints."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """One score in [0, 1] for each endpoint, in their order; higher is better."""
        ...


class Picker(Protocol):
    """Chooses endpoints."""

    def pick(self, request: PickRequest, endpoints: Sequence[Endpoint], scores: Sequence[float]) -> Sequence[Endpoint]:
        """The chosen endpoint, then those to go to if it fails; of at least one. Scores are in the endpoints' order."""
        ...


class Witness(Protocol):
    """A part that wants to know what was chosen."""

    def sent(self, request: PickRequest, endpoint: Endpoint, *, now: float) -> None:
        """A request goes to an endpoint, which does not have its prompt in the index yet."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What parts may need to be made."""

    staleness: float
    """Seconds after which a reading is too old."""
    rng: random.Random
    memory: PoolMemory = field(default_factory=PoolMemory)
    """Of the pool."""
    replicas: bool = False
    """Whether other pickers send requests to the same endpoints."""
