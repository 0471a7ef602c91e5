"""Simulated days of a whole flow control: thousands of clients on a clock of their own, and a picker behind."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.picker.flow_control.refusals import Refusal
from controller.picker.flow_control.settings import LONGEST_WAIT
from controller.picker.flow_control.tickets import Admitted, Ticket

from .conftest import POOL, Front, Pod, ticket

SLOTS = 4
TTL = 15.0
BOUND = 25
ARRIVALS = 2000


@dataclass
class Day:
    """One day: arrivals at a rate that changes, services of random length, hang-ups, pods that come and go."""

    rng: random.Random
    front: Front = field(default_factory=Front)
    clients: dict[str, "asyncio.Task[Admitted | Refusal]"] = field(default_factory=dict)
    entered: dict[str, float] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        gate = self.front.configure(
            slots=SLOTS,
            defaultRequestTTL=TTL,
            noEndpointRequestTTL=TTL,
            maxRequests=BOUND,
        )
        self.front.pods.pods.append(Pod())
        for _ in range(ARRIVALS):
            self._arrive()
            await self._something()
            assert gate.queue.count <= BOUND
            assert gate.granted >= 0
            if self.rng.random() < 0.7:
                await self.front.pass_(self.rng.expovariate(6.0))
            self._look()
        while any(not task.done() for task in self.clients.values()):
            await self.front.pass_(1.0)
            self._end_a_request()
            await self.front.settle()
            self._look()
        assert (gate.queue.count, gate.queue.size, gate.granted) == (0, 0, 0)
        assert gate.queue.bands == ()
        assert self.front.control._waiters == {}
        await self.front.pass_(2.0)
        assert self.front.timers == 0
        assert sum(gate.counts.by_outcome().values()) == ARRIVALS == len(self.ends)
        assert set(self.ends.values()) == {1}

    def _arrive(self) -> None:
        one = ticket(
            self.rng.choice([-1, 0, 0, 0, 3, 7]),
            tenant=self.rng.choice("aaab"),
            size=self.rng.randrange(1000),
            ttl=self.rng.choice([None, None, 2.0]),
        )
        self.entered[one.id] = self.front.now
        self.clients[one.id] = asyncio.create_task(self._client(one))

    async def _client(self, one: Ticket) -> Admitted | Refusal:
        try:
            answer = await self.front.control.admit(one)
        except asyncio.CancelledError:
            self._end(one, "hung up")
            raise
        if isinstance(answer, Refusal):
            self._end(one, answer.drop.value)
            return answer
        # Between two sights of the pool it may have shrunk, so the limit is that of this moment.
        if self.front.pods.pods:
            assert self.front.pods.in_flight < SLOTS * len(self.front.pods.pods)
            self.front.pods.pick()
        self._end(one, "admitted")
        return answer

    async def _something(self) -> None:
        chance = self.rng.random()
        if chance < 0.5:
            await self.front.settle()
        if chance < 0.45:
            self._end_a_request()
        elif chance < 0.55:
            waiting = [name for name, task in self.clients.items() if not task.done()]
            if waiting:
                name = self.rng.choice(waiting)
                if self.rng.random() < 0.5:
                    self.clients[name].cancel()
                else:
                    self.front.control.withdraw(name)
        elif chance < 0.57:
            await self.front.settle()
            count = self.rng.choice([0, 1, 2, 3])
            del self.front.pods.pods[count:]
            self.front.pods.pods.extend(Pod() for _ in range(count - len(self.front.pods.pods)))
            self.front.control.changed(POOL)
            await self.front.settle()

    def _end_a_request(self) -> None:
        busy = [pod for pod in self.front.pods.pods if pod.requests]
        if busy:
            self.rng.choice(busy).requests.pop()
            self.front.control.changed(POOL)
        elif not self.front.pods.pods:
            self.front.pods.pods.append(Pod())
            self.front.control.changed(POOL)

    def _end(self, one: Ticket, kind: str) -> None:
        self.ends[one.id] += 1
        self.kinds[kind] += 1
        del self.entered[one.id]

    def _look(self) -> None:
        """Drop the tasks that ended before they began to wait, and see that nobody waits too long."""
        for name in [name for name, task in self.clients.items() if task.done()]:
            if self.clients.pop(name).cancelled() and name in self.entered:
                # Cancelled before its first step: it never asked.
                del self.entered[name]
                self.ends[name] += 1
                self.front.control.gates[POOL].counts.at_once(0)
        assert all(self.front.now - entered <= LONGEST_WAIT + 0.01 for entered in self.entered.values())


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_simulated_days_of_a_flow_control(seed: int) -> None:
    day = Day(random.Random(seed))
    asyncio.run(day.run())
    assert {"admitted", "hung up", "ttl", "queue_full", "shed", "displaced"} <= set(day.kinds)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    counts=st.tuples(st.integers(5, 40), st.integers(5, 40)),
    slots=st.integers(1, 5),
    completions=st.lists(st.integers(1, 5), max_size=30),
)
def test_two_busy_tenants_are_served_alike_within_one_request(
    counts: tuple[int, int], slots: int, completions: list[int]
) -> None:
    async def run() -> None:
        front = Front()
        gate = front.configure(slots=slots)
        front.send(*(ticket() for _ in range(slots)))
        await front.settle()
        busy = {name: [ticket(tenant=name) for _ in range(count)] for name, count in zip("ab", counts, strict=True)}
        tasks = front.send(*busy["a"], *busy["b"])
        await front.settle()
        owner = {one.id: name for name, tickets in busy.items() for one in tickets}
        for ended in completions:
            del front.pods.pods[0].requests[:ended]
            front.control.changed(POOL)
            await front.settle()
            served = Counter(owner[name] for name in front.picked if name in owner)
            if all(served[name] < len(busy[name]) for name in "ab"):
                assert abs(served["a"] - served["b"]) <= 1
        for name in "ab":
            assert [one.id for one in busy[name] if one.id in front.picked] == [
                picked for picked in front.picked if owner.get(picked) == name
            ]
        front.control.stop()
        await asyncio.gather(*tasks)
        assert gate.queue.count == 0

    asyncio.run(run())
