"""A pool of fake endpoints, and a flow control on a clock that stands still until it is moved."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.gate import Gate
from controller.picker.flow_control.loads import EndpointLoad, Load
from controller.picker.flow_control.refusals import Drop, Refusal
from controller.picker.flow_control.settings import FlowControlSettings, PoolPolicy
from controller.picker.flow_control.tickets import Admitted, Ticket, Waiting

POOL = "llm/gpu"


@dataclass
class Pod:
    """An endpoint on which requests run until they are taken off."""

    requests: list[int] = field(default_factory=list)
    """Tokens of each request in flight."""

    def load(self) -> Load:
        return Load(in_flight=len(self.requests), tokens=sum(self.requests))


@dataclass
class Pods:
    """The endpoints of a pool. Picks go to the one with the fewest requests."""

    pods: list[Pod] = field(default_factory=lambda: [Pod()])
    measures: int = 0

    def loads(self, now: float) -> Sequence[EndpointLoad]:
        self.measures += 1
        return [pod.load() for pod in self.pods]

    def pick(self, tokens: int = 1) -> Pod:
        pod = min(self.pods, key=lambda pod: len(pod.requests))
        pod.requests.append(tokens)
        return pod

    @property
    def in_flight(self) -> int:
        return sum(len(pod.requests) for pod in self.pods)


def policy_of(*, slots: int = 1, tokens: int | None = None, **flow_control: Any) -> PoolPolicy:  # Any: as in the YAML
    """A policy whose pods take so many requests, or tokens, each."""
    parameters: dict[str, object] = {"maxConcurrency": slots}
    if tokens is not None:
        parameters = {"concurrencyMode": "tokens", "maxTokenConcurrency": tokens}
    detector = {"pluginRef": "concurrency-detector", "parameters": parameters}
    return PoolPolicy(flow_control=FlowControlSettings.model_validate({"saturationDetector": detector, **flow_control}))


_NUMBERS = count()


def ticket(priority: int = 0, *, tenant: str = "a", size: int = 0, tokens: int = 1, **more: Any) -> Ticket:  # Any: rest
    """A ticket with an id of its own."""
    given = {"id": str(next(_NUMBERS)), "pool": POOL, "claimant": tenant.encode(), **more}
    return Ticket(priority=priority, size=size, tokens=tokens, **given)


def waiting_of(ticket: Ticket, now: float = 0.0) -> Waiting:
    """What waits for a ticket, its tenant unhashed."""
    return Waiting(
        id=ticket.id,
        tenant=ticket.claimant.decode(),
        priority=ticket.priority,
        size=ticket.size,
        tokens=ticket.tokens,
        entered=now,
        due=float("inf") if ticket.due is None else now + ticket.due,
        ttl=float("inf") if ticket.ttl is None else ticket.ttl,
    )


@dataclass
class Entrance:
    """A gate before some pods."""

    gate: Gate
    pods: Pods
    now: float = 0.0

    def ask(self, ticket: Ticket) -> Waiting | Drop | None:
        """None when it is admitted at once, and then it runs."""
        if self.gate.takes(ticket.priority, tokens=ticket.tokens, now=self.now):
            self.pods.pick(ticket.tokens)
            return None
        waiting = waiting_of(ticket, self.now)
        entered = self.gate.enter(waiting, now=self.now)
        return entered if isinstance(entered, Drop) else waiting

    def step(self) -> list[Waiting]:
        """Released requests; they run."""
        self.gate.changed()
        step = self.gate.step(self.now)
        for waiting in step.released:
            self.gate.resumed(waiting, now=self.now)
            self.pods.pick(waiting.tokens)
        return list(step.released)

    def complete(self) -> list[Waiting]:
        """One request ends; who is released for it."""
        next(pod for pod in self.pods.pods if pod.requests).requests.pop()
        return self.step()


def entrance(*, pods: int = 1, **policy: Any) -> Entrance:  # Any: see policy_of
    """A gate before so many pods."""
    fakes = Pods([Pod() for _ in range(pods)])
    return Entrance(Gate(policy_of(**policy), fakes.loads), fakes)


@dataclass
class Ring:
    """A timer that rings when the clock is moved."""

    at: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Front:
    """A flow control with one pool, its clock and its clients."""

    pods: Pods = field(default_factory=Pods)
    now: float = 1000.0
    rings: list[Ring] = field(default_factory=list)
    picked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.control = FlowController(
            loads=lambda pool, now: self.pods.loads(now) if pool == POOL else (),
            tenants=Tenants(b"key"),
            clock=lambda: self.now,
            later=self._later,
        )

    def configure(self, **policy: Any) -> Gate:  # Any: see policy_of
        self.control.apply({POOL: policy_of(**policy)})
        return self.control.gates[POOL]

    async def request(self, ticket: Ticket) -> Admitted | Refusal:
        """What the picker does: admission, then the pick."""
        answer = await self.control.admit(ticket)
        if isinstance(answer, Admitted):
            self.pods.pick(ticket.tokens)
            self.picked.append(ticket.id)
        return answer

    def send(self, *tickets: Ticket) -> list["asyncio.Task[Admitted | Refusal]"]:
        return [asyncio.create_task(self.request(one)) for one in tickets]

    async def settle(self) -> None:
        """Let every task run until all of them wait."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def complete(self) -> None:
        next(pod for pod in self.pods.pods if pod.requests).requests.pop()
        self.control.changed(POOL)
        await self.settle()

    async def pass_(self, seconds: float) -> None:
        """Move the clock, with every timer that rings on the way."""
        until = self.now + seconds
        while due := [ring for ring in self.rings if not ring.is_cancelled and ring.at <= until]:
            first = min(due, key=lambda ring: ring.at)
            self.rings.remove(first)
            self.now = max(self.now, first.at)
            first.callback()
            await self.settle()
        self.now = until
        self.rings = [ring for ring in self.rings if not ring.is_cancelled]

    @property
    def timers(self) -> int:
        return sum(not ring.is_cancelled for ring in self.rings)

    def _later(self, delay: float, callback: Callable[[], None], /) -> Ring:
        ring = Ring(self.now + delay, callback)
        self.rings.append(ring)
        return ring


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front()
    made.configure()
    yield made
    made.control.stop()
