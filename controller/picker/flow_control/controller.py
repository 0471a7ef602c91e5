"""The waiting side of the flow control: futures, one timer, and clients that hang up.

An admitted request is picked for before its task waits again, so the picker's count has it before anything else is
decided. One that was released from the queue is counted by its gate until its task runs.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.gate import Gate, Step
from controller.picker.flow_control.loads import EndpointLoad
from controller.picker.flow_control.refusals import Drop, Refusal
from controller.picker.flow_control.settings import PoolPolicy
from controller.picker.flow_control.tickets import AT_ONCE, Admitted, Stage, Ticket, Waiting

RECHECK: Final = 1.0
"""Seconds between looks at a queue to which nothing happens: readings grow old, and a message may be lost."""
SOONEST: Final = 0.001
"""Seconds; uvloop rounds to milliseconds, and a timer that rings early must not ring in a circle."""

_WITHDRAWN: Final = Refusal(Drop.WITHDRAWN, 1)

HungUp = Callable[[], Coroutine[Any, Any, object]]  # Any: the types of what a coroutine yields and is sent


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Do not make it."""
        ...


class Later(Protocol):
    """Calls a function after some seconds, as `loop.call_later` does."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


@dataclass(slots=True, eq=False, kw_only=True)
class _Waiter(Waiting):
    """A request whose task waits for a future."""

    gate: Gate = field(repr=False)
    answer: "asyncio.Future[Admitted | Refusal]" = field(repr=False)

    def is_gone(self) -> bool:
        return self.answer.cancelled()


class FlowController:
    """Admission to all pools. A pool without a policy admits everybody."""

    def __init__(
        self,
        *,
        loads: Callable[[str, float], Sequence[EndpointLoad]],
        tenants: Tenants,
        clock: Callable[[], float],
        later: Later,
    ) -> None:
        """`loads` gives the endpoints of a pool at a time; none for a pool that has none, or that is not known."""
        self._loads = loads
        self._tenants = tenants
        self._clock = clock
        self._later = later
        self._waiters: dict[str, _Waiter] = {}
        """By the id of the request."""
        self._timer: Timer | None = None
        self._rings_at = math.inf
        self.gates: dict[str, Gate] = {}
        """By pool."""

    def apply(self, policies: Mapping[str, PoolPolicy]) -> None:
        """Use these policies, by pool, from here on.

        Who waits for a pool without one is admitted, as whoever comes is, or gets 503 where there are no endpoints.
        """
        now = self._clock()
        for pool in self.gates.keys() - policies.keys():
            gate = self.gates.pop(pool)
            has_endpoints = bool(self._loads(pool, now))
            step = gate.open(now=now) if has_endpoints else gate.stop(Drop.NO_ENDPOINTS_TTL, now=now)
            self._tell(gate, step, now=now)
        for pool, policy in policies.items():
            if pool in self.gates:
                self.gates[pool].configure(policy, now=now)
                self.changed(pool)
            else:
                self.gates[pool] = Gate(policy, partial(self._loads, pool))

    async def admit(self, ticket: Ticket, hung_up: HungUp | None = None) -> Admitted | Refusal:
        """Wait until a request may go to its pool. It is to be picked for before anything else is awaited.

        `hung_up` ends when the client went away, and is asked only when the request has to wait. The request leaves
        the queue then, or when the task is cancelled, or with `withdraw`.
        """
        gate = self.gates.get(ticket.pool)
        if gate is None:
            return AT_ONCE
        now = self._clock()
        if gate.takes(ticket.priority, tokens=ticket.tokens, now=now):
            return AT_ONCE
        if gate.has_room:
            # Room that nobody told of, and somebody waits who goes before.
            self._step(gate)
            if gate.takes(ticket.priority, tokens=ticket.tokens, now=now):
                return AT_ONCE
        return await self._wait(self._waiter(ticket, gate, now=now), hung_up)

    def withdraw(self, request: str) -> None:
        """The client of a request hung up. Does nothing for one that does not wait."""
        waiter = self._waiters.get(request)
        if waiter is not None:
            self._withdraw(waiter)

    def changed(self, pool: str) -> None:
        """Something happened to a pool: a completion, a first byte, a reading, an endpoint. Releases who may run.

        Call it once for all that came together.
        """
        gate = self.gates.get(pool)
        if gate is not None:
            gate.changed()
            if gate.queue.count:
                self._step(gate)

    def stop(self) -> None:
        """Refuse everybody who waits, and whoever would have to wait."""
        now = self._clock()
        for gate in self.gates.values():
            self._tell(gate, gate.stop(Drop.SHUTTING_DOWN, now=now), now=now)
        self._silence()

    async def _wait(self, waiter: _Waiter, hung_up: HungUp | None) -> Admitted | Refusal:
        # Hot only under load: a wait costs about 40 us, most of them the task that watches the client.
        refusal = self._enter(waiter)
        if refusal is not None:
            return refusal
        watch = asyncio.ensure_future(hung_up()) if hung_up is not None else None
        if watch is not None:
            watch.add_done_callback(lambda done: self._saw(waiter, done))
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        finally:
            if watch is not None and not watch.done():
                watch.cancel()
            if self._waiters.get(waiter.id) is waiter:
                del self._waiters[waiter.id]
        if isinstance(answer, Admitted):
            if watch is not None and watch.done():
                self._withdraw(waiter)
            if waiter.stage is Stage.ENDED:
                # The client hung up between the release and this moment.
                return _WITHDRAWN
            waiter.gate.resumed(waiter, now=self._clock())
        return answer

    def _waiter(self, ticket: Ticket, gate: Gate, *, now: float) -> _Waiter:
        return _Waiter(
            id=ticket.id,
            tenant=self._tenants.name(ticket.claimant),
            priority=ticket.priority,
            size=ticket.size,
            tokens=ticket.tokens,
            entered=now,
            due=math.inf if ticket.due is None else now + ticket.due,
            ttl=math.inf if ticket.ttl is None else ticket.ttl,
            gate=gate,
            answer=asyncio.get_running_loop().create_future(),
        )

    def _enter(self, waiter: _Waiter) -> Refusal | None:
        """Put a request into its queue; the refusal if there is no place for it."""
        gate, now = waiter.gate, waiter.entered
        entered = gate.enter(waiter, now=now)
        if isinstance(entered, Drop):
            return Refusal(entered, gate.retry_after(entered, waiter.priority))
        self._waiters[waiter.id] = waiter
        self._tell(gate, Step(dropped=entered), now=now)
        self._ring(min(waiter.expires, now + RECHECK), now=now)
        return None

    def _saw(self, waiter: _Waiter, done: "asyncio.Task[object]") -> None:
        """The client hung up, or looking for that failed, which is no better."""
        if not done.cancelled():
            done.exception()
            self._withdraw(waiter)

    def _withdraw(self, waiter: _Waiter) -> None:
        """Take a request out; others may go in its place, if its task has not seen yet that it was released."""
        now = self._clock()
        gate = waiter.gate
        if gate.withdraw(waiter, now=now) and gate.queue.count:
            self._step(gate)
        if not waiter.answer.done():
            waiter.answer.set_result(_WITHDRAWN)

    def _step(self, gate: Gate) -> None:
        now = self._clock()
        self._tell(gate, gate.step(now), now=now)

    def _tell(self, gate: Gate, step: Step, *, now: float) -> None:
        for waiting in step.released:
            assert isinstance(waiting, _Waiter)  # the gate holds what was entered here
            waiting.answer.set_result(Admitted(now - waiting.entered))
        for waiting, drop in step.dropped:
            assert isinstance(waiting, _Waiter)  # as above
            if not waiting.answer.done():
                waiting.answer.set_result(Refusal(drop, gate.retry_after(drop, waiting.priority)))

    def _ring(self, at: float, *, now: float) -> None:
        """Look again at some time, or before."""
        if at < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = at
            self._timer = self._later(max(SOONEST, at - now), self._rang)

    def _rang(self) -> None:
        self._silence()
        for gate in self.gates.values():
            if gate.queue.count:
                self._step(gate)
        now = self._clock()
        expiries = [gate.queue.next_expiry() for gate in self.gates.values() if gate.queue.count]
        if expiries:
            self._ring(min(now + RECHECK, *(at for at in expiries if at is not None)), now=now)

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._rings_at = math.inf
