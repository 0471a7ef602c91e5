"""Builders for the picker's state, with a clock that stands still until it is moved."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from controller.bundle import Completion, Engine, Pool, PoolEndpoint, pools_of
from controller.picker.completions import Completions
from controller.picker.director import Director
from controller.picker.endpoints import Endpoint
from controller.picker.inflight import InFlight
from controller.picker.model_servers import Reading
from controller.picker.pools import PoolTable
from controller.picker.requests import PickRequest, read_tried
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import default_profile

STALENESS = 3.0


@dataclass
class Clock:
    """Seconds that pass only when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Picker:
    """The picker without its sockets."""

    clock: Clock = field(default_factory=Clock)
    in_flight: InFlight = field(default_factory=InFlight)

    def __post_init__(self) -> None:
        self.table = PoolTable(self.in_flight)
        self.completions = Completions(self.in_flight)
        profile = default_profile(Surroundings(staleness=STALENESS, rng=random.Random(1)))
        self.director = Director(table=self.table, in_flight=self.in_flight, profile=profile, clock=self.clock)

    def serve(self, *names: str, pool: str = "llm/gpu", uid: str = "1", engine: Engine | None = None) -> None:
        """Serve a pool of endpoints with one-letter names: `a` is `llm/a` at `a:8000`."""
        endpoints = tuple(PoolEndpoint(address=f"{n}:8000", name=f"llm/{n}", uid=uid, engine=engine) for n in names)
        self.table.apply(pools_of((Pool(name=pool, endpoints=endpoints),)))

    def endpoint(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.table.endpoints if endpoint.name == f"llm/{name}")

    def read(self, name: str, *, running: int = 0, waiting: int = 0, kv_use: float | None = None) -> None:
        """Take a reading of an endpoint, as if it was just scraped."""
        endpoint = self.endpoint(name)
        reading = Reading(engine=Engine.VLLM, running=running, waiting=waiting, kv_use=kv_use)
        endpoint.read(reading, own=len(endpoint.open), now=self.clock())

    def pick(self, request: str, *, tried: str = "", pool: str = "llm/gpu") -> str:
        """The name of the picked endpoint, or the outcome of a refusal."""
        picked = self.director.pick(
            PickRequest(request, pool, b"@serve", read_tried(tried), "POST", "/v1/completions", 0)
        )
        return picked.name.removeprefix("llm/") if isinstance(picked, Endpoint) else picked.outcome.value

    def complete(self, request: str, *, endpoint: str, upstream_status: str = "200 : 200", status: int = 200) -> None:
        """Take the completion of a request."""
        address = f"{endpoint}:8000" if endpoint else ""
        self.completions.take(
            completion_line(request, endpoint=address, upstream_status=upstream_status, status=status), now=self.clock()
        )

    def count(self, name: str) -> int:
        """Requests in flight to an endpoint."""
        return len(self.endpoint(name).open)


def completion_line(request: str, *, endpoint: str, upstream_status: str = "200 : 200", status: int = 200) -> bytes:
    """A completion as NGINX sends it."""

    completion = Completion(request, "llm/gpu", endpoint, "", status, upstream_status, 0.1, 0.05, 100)
    return msgspec.json.encode(completion)


@pytest.fixture
def picker() -> Picker:
    return Picker()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return completion_line
