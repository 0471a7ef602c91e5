"""The processor time of single picks, without sockets: from the whole request to the answer, in this process.

What others do on the machine does not show in it, as it does in the time that a pick takes by the clock.
"""

import gc
import random
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from controller.completions import Completion
from controller.picker.answers import Refusal, answer_of_pick
from controller.picker.completions import Completions
from controller.picker.director import Director
from controller.picker.inflight import InFlight
from controller.picker.pools import PoolState, PoolTable
from controller.picker.requests import BodyPieces, PickRequest, pick_request
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import Profile, default_profile
from controller.pools import Pool, PoolEndpoint, pools_of
from tools.bench.bodies import chat_body
from tools.bench.failures import CannotMeasure
from tools.bench.resources import CHAT_PATH
from tools.bench.samples import percentile

_POOL: Final = "llm/gpu"
_CONVERSATIONS: Final = 16
_WARM_UP: Final = 50


@dataclass(frozen=True)
class Alone:
    """Picks by the default rule for requests of one size."""

    body_bytes: int
    endpoints: int
    picks: int
    median_us: float
    """Microseconds of processor time."""
    p99_us: float


def measure(size: int, *, endpoints: int, picks: int) -> Alone:
    """Picks among so many endpoints, of which four requests are in flight at a time.

    Raises CannotMeasure when one is refused.
    """
    director, completions = _picker(endpoints)
    bodies = [chat_body(size, seed=seed) for seed in range(_CONVERSATIONS)]
    open_: list[tuple[str, str]] = []
    times: list[float] = []
    was_enabled = gc.isenabled()
    # The picker looks for cycles seldom.
    gc.disable()
    try:
        for number in range(_WARM_UP + picks):
            began = time.thread_time_ns()
            request = _request(number, bodies[number % _CONVERSATIONS])
            chosen = director.pick(request)
            if isinstance(chosen, Refusal):
                raise CannotMeasure(f"a pick was refused: {chosen.message}")
            answer_of_pick(request, chosen)
            times.append((time.thread_time_ns() - began) / 1000)
            open_.append((request.id, chosen[0].address))
            if len(open_) > 4:
                completions.take(_end(*open_.pop(0)), now=time.monotonic())
    finally:
        if was_enabled:
            gc.enable()
    counted = times[_WARM_UP:]
    return Alone(size, endpoints, picks, percentile(counted, 0.5), percentile(counted, 0.99))


def _picker(endpoints: int) -> tuple[Director, Completions]:
    in_flight = InFlight()
    table = PoolTable(in_flight)
    table.apply(pools_of((Pool(_POOL, tuple(PoolEndpoint(f"10.0.0.{n}:8000", f"llm/{n}") for n in range(endpoints))),)))
    rng = random.Random(1)

    def profile(pool: PoolState) -> Profile:
        return default_profile(Surroundings(staleness=3.0, rng=rng, memory=pool.memory))

    director = Director(table=table, in_flight=in_flight, profile_of=profile, clock=time.monotonic)
    return director, Completions(in_flight)


def _request(number: int, body: bytes) -> PickRequest:
    pieces = BodyPieces()
    pieces.add(body)
    headers = {
        b"host": b"a",
        b"content-type": b"application/json",
        b"x-infergate-pool": _POOL.encode(),
        b"x-infergate-request": b"%032x" % number,
        b"x-infergate-then": b"@serve",
    }
    return pick_request("POST", CHAT_PATH, headers, pieces)


def _end(request: str, endpoint: str) -> bytes:
    return msgspec.json.encode(Completion(request, _POOL, endpoint, "", 200, "200 : 200", 0.05, 0.04, None, 1000))
