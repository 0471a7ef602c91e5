"""Replays a trace: the same requests at the same times, chosen for by another policy, with the picker's own parts.

The clock is the trace's. Requests run for as long as they did when they were recorded, wherever they go; what their
answers teach counts only where the choice is the recorded one, because elsewhere they would have been other answers. So
a replay tells what would be chosen and found in caches, not how fast answers would be.
"""

import random
from dataclasses import dataclass, field

import msgspec

from controller.picker.answers import Refusal
from controller.picker.completions import Completions
from controller.picker.director import Director
from controller.picker.inflight import InFlight
from controller.picker.policies import profile_of
from controller.picker.pools import PoolState, PoolTable
from controller.picker.replay.events import AnyEvent, Opened, Picked, Read, Served, Told
from controller.picker.replay.tally import Tally
from controller.picker.requests import PickRequest, Try
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import Profile
from controller.picker.watch import Watch
from controller.plugins.catalogue import Catalogue
from controller.plugins.types import AppliedPolicy
from controller.pools import Pool, pools_of


@dataclass
class _Clock:
    """Seconds of the trace."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Place:
    """Where a request is, and where it was when it was recorded."""

    here: str
    then: str


@dataclass
class Player:
    """A picker that is told what another one was told."""

    catalogue: Catalogue
    policy: AppliedPolicy | None = None
    """For all pools; None: the recorded ones."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By pool."""
    length: float = 0.0
    """Seconds from the first event to the last."""

    def __post_init__(self) -> None:
        self._clock = _Clock()
        self._rng = random.Random()
        self._in_flight = InFlight()
        self._completions = Completions(self._in_flight)
        self._open(Opened(at=0.0, version=0, staleness=0.0))
        self._places: dict[str, _Place] = {}

    def take(self, event: AnyEvent) -> None:
        """The next event of the trace."""
        # Readings are noted up to a second after they came.
        self._clock.now = max(self._clock.now, event.at)
        self.length = self._clock.now
        match event:
            case Opened():
                self._open(event)
            case Served():
                self._table.apply(pools_of(tuple(self._pool(pool) for pool in event.pools)))
                for pool in event.pools:
                    self._tally(pool.name).endpoints |= {endpoint.address for endpoint in pool.endpoints}
            case Read():
                self._read(event)
            case Picked():
                self._pick(event)
            case Told():
                self._tell(event)

    def _open(self, event: Opened) -> None:
        """Begin as the recording picker began."""
        self._replicas = event.replicas
        self._rng.seed(event.seed)
        self._table = PoolTable(self._in_flight, Watch(staleness=event.staleness))
        self._director = Director(
            table=self._table, in_flight=self._in_flight, profile_of=self._profile_of, clock=self._clock
        )

    def _profile_of(self, pool: PoolState) -> Profile:
        surroundings = Surroundings(
            staleness=pool.watch.staleness, rng=self._rng, memory=pool.memory, replicas=self._replicas
        )
        return profile_of(pool, surroundings, catalogue=self.catalogue)

    def _pool(self, pool: Pool) -> Pool:
        return pool if self.policy is None else msgspec.structs.replace(pool, policy=self.policy)

    def _tally(self, pool: str) -> Tally:
        return self.tallies.setdefault(pool, Tally())

    def _read(self, event: Read) -> None:
        for endpoint in self._table.endpoints:
            if (endpoint.address, endpoint.name) == (event.address, event.name):
                if event.reading is None:
                    endpoint.read_nothing(endpoint.metrics, now=event.at)
                else:
                    endpoint.read(event.reading, own=event.own, now=event.at)
        self._table.digest_readings()

    def _pick(self, event: Picked) -> None:
        place = self._places.get(event.id)
        if event.tried:
            if place is None:
                return
            place.then = event.choice
            if place.here != event.tried[-1][0]:
                # It went elsewhere, and nobody knows whether it would have failed there.
                return
        pool = self._table.pools.get(event.pool)
        if pool is not None and event.adapter:
            pool.memory.adapters.add(event.adapter)
        request = _request(event)
        picked = self._director.pick(request)
        here = "" if isinstance(picked, Refusal) else picked[0].address
        if here:
            self._places[event.id] = _Place(here, event.choice)
        else:
            self._places.pop(event.id, None)
        if not event.tried:
            tally = self._tally(event.pool)
            tally.recorded.add(event.choice, prompt=event.prompt_bytes, cached=event.cached_bytes)
            tally.replayed.add(here, prompt=event.prompt_bytes, cached=request.cached_bytes)
            tally.requests += 1
            tally.changed += here != event.choice

    def _tell(self, event: Told) -> None:
        begun = [msgspec.json.encode(begun) for begun in event.begun if begun.id in self._places]
        self._completions.take_first_bytes(b"\n".join(begun), now=self._clock())
        lines = []
        for ended in event.ended:
            place = self._places.pop(ended.id, None)
            if place is None:
                continue
            if place.here == place.then == ended.endpoint:
                lines.append(msgspec.json.encode(ended))
            else:
                self._in_flight.end(ended.id)
        self._completions.take(b"\n".join(lines), now=self._clock.now)


def _request(event: Picked) -> PickRequest:
    return PickRequest(
        id=event.id,
        pool=event.pool,
        then=b"",
        tried=tuple(Try(address, failure) for address, failure in event.tried),
        method="POST",
        path="",
        size=event.size,
        model=event.adapter,
        is_streamed=event.is_streamed,
        max_tokens=event.max_tokens,
        prompt_bytes=event.prompt_bytes,
        hashes=event.hashes,
        turn=event.turn,
    )
