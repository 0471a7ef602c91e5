"""Builders for the picker's state, with a clock that stands still until it is moved."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from controller.completions import Completion, FirstByte
from controller.picker.answers import Refusal
from controller.picker.chunks import chunk_hashes
from controller.picker.completions import Completions
from controller.picker.director import Director
from controller.picker.endpoints import Endpoint
from controller.picker.inflight import InFlight
from controller.picker.model_servers import Reading
from controller.picker.pools import PoolState, PoolTable
from controller.picker.requests import PickRequest, read_tried
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import PluginSpec, Profile, build_profile
from controller.plugins.types import DEFAULT_HEALTH, AppliedPolicy, Health
from controller.pools import Engine, Pool, PoolEndpoint, pools_of


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
    plugins: tuple[PluginSpec, ...] = ()
    profile: tuple[tuple[str, float], ...] = ()
    replicas: bool = False

    def __post_init__(self) -> None:
        self.table = PoolTable(self.in_flight)
        self.completions = Completions(self.in_flight)
        self.rng = random.Random(1)
        self.director = Director(
            table=self.table, in_flight=self.in_flight, profile_of=self.profile_of, clock=self.clock
        )

    def surroundings(self, pool: PoolState) -> Surroundings:
        return Surroundings(staleness=pool.watch.staleness, rng=self.rng, memory=pool.memory, replicas=self.replicas)

    def profile_of(self, pool: PoolState) -> Profile:
        """The profile that the test asks for, else the default."""
        return build_profile(self.plugins, self.profile, self.surroundings(pool))

    def serve(
        self,
        *names: str,
        pool: str = "llm/gpu",
        uid: str = "1",
        engine: Engine | None = None,
        health: Health = DEFAULT_HEALTH,
        usage: bool = False,
    ) -> None:
        """Serve a pool of endpoints with one-letter names: `a` is `llm/a` at `a:8000`."""
        endpoints = tuple(PoolEndpoint(address=f"{n}:8000", name=f"llm/{n}", uid=uid, engine=engine) for n in names)
        policy = AppliedPolicy(health=health, usage=usage)
        self.table.apply(pools_of((Pool(name=pool, endpoints=endpoints, policy=policy),)))

    def endpoint(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.table.endpoints if endpoint.name == f"llm/{name}")

    def read(self, name: str, **told: Any) -> None:  # Any: fields of a reading
        """Take a reading of an endpoint, as if it was just scraped."""
        endpoint = self.endpoint(name)
        reading = Reading(engine=Engine.VLLM, **told)
        endpoint.read(reading, own=len(endpoint.open), now=self.clock())

    def pick(self, request: str, *, tried: str = "", pool: str = "llm/gpu", **asked: Any) -> str:  # Any: fields
        """The name of the picked endpoint, or the outcome of a refusal."""
        return self.picked(request, tried=tried, pool=pool, **asked)[0]

    def picked(self, request: str, *, tried: str = "", pool: str = "llm/gpu", **asked: Any) -> list[str]:  # Any: fields
        """The names of the picked endpoint and its fallbacks, or the outcome of a refusal."""
        picked = self.director.pick(request_of(request, tried=tried, pool=pool, **asked))
        if isinstance(picked, Refusal):
            return [picked.outcome.value]
        return [endpoint.name.removeprefix("llm/") for endpoint in picked]

    def first_byte(self, request: str, waited: float) -> None:
        """Take the first byte of an answer."""
        self.completions.take_first_bytes(msgspec.json.encode(FirstByte(request, waited)), now=self.clock())

    def complete(self, request: str, *, endpoint: str, **told: Any) -> None:  # Any: fields of a completion
        """Take the completion of a request."""
        address = f"{endpoint}:8000" if endpoint else ""
        self.completions.take(completion_line(request, endpoint=address, **told), now=self.clock())

    def count(self, name: str) -> int:
        """Requests in flight to an endpoint."""
        return len(self.endpoint(name).open)


def request_of(
    request: str,
    *,
    tried: str = "",
    pool: str = "llm/gpu",
    prompt: bytes = b"",
    model: str = "",
    size: int = 0,
    **asked: Any,
) -> PickRequest:  # Any: further fields of the request
    """A request whose prompt is these bytes."""
    hashes = chunk_hashes(prompt, root=0)
    tries = read_tried(tried)
    return PickRequest(
        request, pool, b"@serve", tries, "POST", "/v1/completions", size,
        model=model, prompt_bytes=len(prompt), hashes=hashes, **asked,
    )  # fmt: skip


def completion_line(request: str, *, endpoint: str, **told: Any) -> bytes:  # Any: as above
    """A completion as NGINX sends it."""
    fields: dict[str, Any] = {  # Any: as above
        "pool": "llm/gpu", "tried": "", "status": 200, "upstream_status": "200 : 200", "duration": 1e9,
        "first_byte": 0.05, "waited": None, "sent": 100,
    }  # fmt: skip
    return msgspec.json.encode(Completion(id=request, endpoint=endpoint, **(fields | told)))


@pytest.fixture
def picker() -> Picker:
    return Picker()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return completion_line
