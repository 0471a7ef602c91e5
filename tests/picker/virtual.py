"""Gateways before simulated pods, on a clock that is moved: the picker's own parts, without sockets or waiting."""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.simulator.engine import Engine, State
from controller.simulator.engine import Sequence as Work
from controller.simulator.settings import PodSettings
from controller.simulator.tokens import TOKEN_BYTES, block_hashes

from .conftest import Clock, Picker

PODS = "abcdef"
SCRAPES = 1.0
"""Seconds between the readings of a pod."""
LAST = 1e9


@dataclass(frozen=True)
class Arrival:
    """A request that a client sends, streamed."""

    at: float
    """Seconds from the start."""
    prompt: bytes = field(repr=False)
    tokens: int
    """Of the answer."""


@dataclass(eq=False, slots=True)
class _Asked(Work):
    """A request at its pod."""

    id: str = ""
    pod: str = ""
    picker: Picker | None = None
    """None where another policy chose."""


@dataclass
class Outcome:
    """What came of a run."""

    first_bytes: list[float] = field(default_factory=list)
    """Seconds to the first byte of each request."""
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def hit_share(self) -> float:
        """Share of the prompts' tokens that the pods had in their caches."""
        return self.cached_tokens / self.prompt_tokens

    def first_byte(self, share: float) -> float:
        """Seconds within which this share of the requests had their first byte."""
        return sorted(self.first_bytes)[int(share * len(self.first_bytes))]


def poisson(count: int, *, rate: float, seed: int, prompt: Callable[[random.Random], bytes]) -> list[Arrival]:
    """Requests at random times, so many a second, with answers of 10 to 50 tokens."""
    rng = random.Random(seed)
    now = 0.0
    arrivals = []
    for _ in range(count):
        now += rng.expovariate(rate)
        arrivals.append(Arrival(now, prompt(rng), rng.randint(10, 50)))
    return arrivals


def run(arrivals: Sequence[Arrival], *, replicas: int = 1, policy: Callable[[int], str] | None = None) -> Outcome:
    """Send requests to six pods: through gateways that know nothing of each other, or as another policy says."""
    clock = Clock()
    pickers = [] if policy else [Picker(clock=clock, replicas=replicas > 1) for _ in range(replicas)]
    for number, picker in enumerate(pickers):
        picker.rng.seed(number)
        picker.serve(*PODS)
    pods = {name: Engine[_Asked](PodSettings(name=name, model="m")) for name in PODS}
    outcome = Outcome()
    gateways = random.Random(1)
    start = clock.now
    pending = list(reversed(arrivals))
    numbers = itertools.count()
    scrapes = [(start + (number + 1) / len(PODS) * SCRAPES, name) for number, name in enumerate(PODS)]
    while pending or any(pod.next_at is not None for pod in pods.values()):
        due, name = min((LAST if pod.next_at is None else pod.next_at, name) for name, pod in pods.items())
        arrives = start + pending[-1].at if pending else LAST
        clock.now = min(due, arrives, scrapes[0][0])
        if scrapes[0][0] == clock.now:
            _, scraped = heapq.heappop(scrapes)
            heapq.heappush(scrapes, (clock.now + SCRAPES, scraped))
            for picker in pickers:
                _scrape(picker, scraped, pods[scraped])
        elif arrives == clock.now:
            asked = _asked(pending.pop(), next(numbers))
            if policy:
                asked.pod = policy(int(asked.id))
            else:
                asked.picker = gateways.choice(pickers)
                asked.pod = asked.picker.pick(asked.id, prompt=asked.prompt, is_streamed=True)
            pods[asked.pod].submit(asked, now=clock.now)
        else:
            for asked in pods[name].step(clock.now):
                _advance(asked, outcome, now=clock.now)
    assert all(picker.count(name) == 0 for picker in pickers for name in PODS)
    return outcome


def _asked(arrival: Arrival, number: int) -> _Asked:
    answer = b"t" * TOKEN_BYTES * arrival.tokens
    return _Asked(
        arrival.prompt, answer, block_hashes(arrival.prompt + answer, root="m", block_size=16), id=str(number)
    )


def _scrape(picker: Picker, name: str, pod: Engine[_Asked]) -> None:
    totals = pod.totals
    picker.read(
        name,
        running=len(pod.running),
        waiting=len(pod.waiting),
        kv_use=pod.kv_usage,
        block_size=16,
        blocks=3000,
        prompt_tokens=float(totals.prompt_tokens),
        generated_tokens=float(totals.generation_tokens),
    )
    picker.table.digest_readings()


def _advance(asked: _Asked, outcome: Outcome, *, now: float) -> None:
    waited = now - asked.arrived
    if asked.generated == 1:
        outcome.first_bytes.append(waited)
        if asked.picker:
            asked.picker.first_byte(asked.id, waited)
    if asked.state is State.FINISHED:
        outcome.prompt_tokens += asked.prompt_tokens
        outcome.cached_tokens += asked.cached or 0
        if asked.picker:
            asked.picker.complete(
                asked.id,
                endpoint=asked.pod,
                duration=waited,
                sent=200 * asked.answer_tokens,
                prompt_tokens=asked.prompt_tokens,
                cached_tokens=asked.cached,
            )
