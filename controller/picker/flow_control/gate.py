"""Admission to one pool, without a clock and without asyncio: `now` is an argument.

Room is measured, then used up. A measure is taken again when it is spent, after `changed`, and when it is old, so most
admissions compare two numbers. What was released but is not yet in the picker's count is subtracted from every measure;
so whatever comes together, a limit of requests is not passed, and one of tokens by one estimate at most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.picker.flow_control.counts import Counts
from controller.picker.flow_control.drain import SHORTEST, UNKNOWN, DrainMeter
from controller.picker.flow_control.loads import EndpointLoad
from controller.picker.flow_control.queue import Band, Dropped, PoolQueue, QueueFull
from controller.picker.flow_control.refusals import Drop
from controller.picker.flow_control.saturation import Detector, Room, detector_of
from controller.picker.flow_control.settings import PoolPolicy
from controller.picker.flow_control.tickets import Stage, Waiting

MEASURE_LASTS: Final = 0.1
"""Seconds; readings grow too old by time alone. 10 measures a second cost nothing."""

Loads = Callable[[float], Sequence[EndpointLoad]]
"""The endpoints of the pool at a time; none while it has none."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a change led to. None of these is in the queue any more."""

    released: tuple[Waiting, ...] = ()
    dropped: tuple[Dropped, ...] = ()


class Gate:
    """Decides who may go to a pool, who waits and who is refused."""

    def __init__(self, policy: PoolPolicy, loads: Loads) -> None:
        self._loads = loads
        self.policy = policy
        self.queue = PoolQueue(policy.flow_control)
        self.counts = Counts()
        self.room = Room()
        """As measured last."""
        self.granted = 0
        """Requests that were released and have not been picked for yet."""
        self._granted_tokens = 0
        self._detector: Detector = detector_of(policy.flow_control.saturation_detector)
        self._has_ceilings = _has_ceilings(policy)
        self._requests = 0.0
        self._tokens = 0.0
        self._lasts_until = -math.inf
        self._is_spent = False
        """Whether something was admitted since the measure."""
        self._has_endpoints = True
        self._is_stopped = False
        self._meter = DrainMeter()

    @property
    def has_room(self) -> bool:
        """Whether the last measure is not used up."""
        return self._requests >= 1 and self._tokens > 0

    @property
    def detector(self) -> Detector:
        """The detector that is configured."""
        return self._detector

    def configure(self, policy: PoolPolicy, *, now: float) -> None:
        """Use another policy from here on. Who waits goes on waiting, with what the policy gives it."""
        if policy == self.policy:
            return
        self.policy = policy
        self.queue.configure(policy.flow_control)
        self._detector = detector_of(policy.flow_control.saturation_detector)
        self._has_ceilings = _has_ceilings(policy)
        self.queue.restart(lambda waiting: waiting.entered + self._budget(waiting))
        self.changed()

    def takes(self, priority: int, *, tokens: int, now: float) -> bool:
        """Whether a request may go at once; then it has been counted, and is to be picked for before anything waits.

        It needs no ticket for that, and most requests get none.
        """
        if now >= self._lasts_until or (self._is_spent and (self._requests < 1 or self._tokens <= 0)):
            self._measure(now)
        if not self.has_room:
            return False
        if (self.queue.count or self._has_ceilings) and not self._may_pass(priority):
            return False
        self._take(tokens)
        self.counts.at_once(priority)
        return True

    def enter(self, waiting: Waiting, *, now: float) -> Drop | tuple[Dropped, ...]:
        """Let a request wait that may not go at once: those that had to make room, or why it may not wait."""
        drop: Drop | None = None
        dropped: tuple[Dropped, ...] = ()
        if self._is_stopped:
            drop = Drop.SHUTTING_DOWN
        elif waiting.priority < 0 and self._has_endpoints:
            drop = Drop.SHED
        else:
            try:
                dropped = self.queue.enter(waiting, expires=now + self._budget(waiting))
            except QueueFull:
                drop = Drop.QUEUE_FULL if self._has_endpoints else Drop.NO_ENDPOINTS
        if drop is not None:
            waiting.stage = Stage.ENDED
            self.counts.ended(waiting, drop, now=now)
            return drop
        self._meter.advance(now=now, is_waiting=True)
        for victim, why in dropped:
            self.counts.ended(victim, why, now=now)
        return dropped

    def changed(self) -> None:
        """Something happened to the endpoints: the last measure does not count any more."""
        self._lasts_until = -math.inf

    def step(self, now: float) -> Step:
        """Release as many as there is room for, and end what has waited too long."""
        self._measure(now)
        late = Drop.TTL if self._has_endpoints else Drop.NO_ENDPOINTS_TTL
        dropped = [(waiting, late) for waiting in self.queue.expire(now)]
        return self._release(self._may_run, dropped, now=now)

    def open(self, *, now: float) -> Step:
        """Release everybody, whatever room there is: nobody is to wait any more."""
        return self._release(lambda band: True, [], now=now)

    def resumed(self, waiting: Waiting, *, now: float) -> None:
        """A released request is picked for next, and then in the picker's count."""
        self._give_back(waiting)
        self.counts.dispatched(waiting, now=now)

    def withdraw(self, waiting: Waiting, *, now: float) -> bool:
        """The client hung up. Whether room came free, so that others may be released; does nothing for one that ended.

        One that was released, but not resumed, gives its room back.
        """
        if waiting.stage is Stage.ENDED:
            return False
        was_granted = waiting.stage is Stage.GRANTED
        if was_granted:
            self._give_back(waiting)
            self.changed()
        else:
            self.queue.withdraw(waiting)
            self._meter.advance(now=now, is_waiting=self.queue.count > 0)
        self.counts.ended(waiting, Drop.WITHDRAWN, now=now)
        return was_granted

    def stop(self, drop: Drop, *, now: float) -> Step:
        """End every wait, and let nobody wait from here on. What may go at once still does."""
        self._is_stopped = True
        dropped = tuple((waiting, drop) for waiting in self.queue.drain())
        for waiting, _ in dropped:
            self.counts.ended(waiting, drop, now=now)
        self._meter.advance(now=now, is_waiting=False)
        return Step(dropped=dropped)

    def retry_after(self, drop: Drop, priority: int) -> int:
        """Whole seconds, 1 to 60, after which a request of that priority may have better luck."""
        if drop is Drop.SHUTTING_DOWN:
            return SHORTEST
        if not self._has_endpoints:
            # Nothing drains: it takes as long as a model server takes to start, which nobody knows here.
            return UNKNOWN
        return self._meter.retry_after(self.queue.ahead_of(priority))

    def _release(self, may_run: Callable[[Band], bool], dropped: list[Dropped], *, now: float) -> Step:
        """Release who may run, beside those that were dropped before."""
        released: list[Waiting] = []
        for waiting in self.queue.release(may_run):
            if waiting.stage is Stage.GRANTED:
                self._take(waiting.tokens)
                self.granted += 1
                self._granted_tokens += waiting.tokens
                released.append(waiting)
            else:
                dropped.append((waiting, Drop.WITHDRAWN))
        for waiting, drop in dropped:
            self.counts.ended(waiting, drop, now=now)
        self._meter.advance(now=now, is_waiting=self.queue.count > 0, released=len(released))
        return Step(tuple(released), tuple(dropped))

    def _measure(self, now: float) -> None:
        loads = self._loads(now)
        self.room = self._detector.room(loads)
        self._requests = self.room.requests - self.granted
        self._tokens = self.room.tokens - self._granted_tokens
        self._lasts_until = now + MEASURE_LASTS
        self._is_spent = False
        if self._has_endpoints != bool(loads):
            # Waiting for an endpoint and waiting for capacity are two waits; both together end with LONGEST_WAIT.
            self._has_endpoints = bool(loads)
            self.queue.restart(lambda waiting: now + self._budget(waiting))

    def _budget(self, waiting: Waiting) -> float:
        settings = self.policy.flow_control
        return min(waiting.ttl, settings.ttl if self._has_endpoints else settings.no_endpoint_ttl)

    def _take(self, tokens: int) -> None:
        self._requests -= 1
        self._tokens -= tokens
        self._is_spent = True

    def _give_back(self, waiting: Waiting) -> None:
        waiting.stage = Stage.ENDED
        self.granted -= 1
        self._granted_tokens -= waiting.tokens

    def _may_pass(self, priority: int) -> bool:
        ceiling = self.policy.flow_control.band(priority).usage_ceiling if self._has_ceilings else 1.0
        return self._is_below(ceiling) and self.queue.may_bypass(priority, self._may_run)

    def _may_run(self, band: Band) -> bool:
        return self._is_below(band.settings.usage_ceiling)

    def _is_below(self, ceiling: float) -> bool:
        """Whether there is room for one more, with the rest above a ceiling held back."""
        if ceiling == 1.0:
            return self.has_room
        held = 1.0 - ceiling
        requests = self._requests - math.ceil(held * self.room.max_requests) if self._requests < math.inf else math.inf
        tokens = self._tokens - held * self.room.max_tokens if self._tokens < math.inf else math.inf
        return requests >= 1 and tokens > 0


def _has_ceilings(policy: PoolPolicy) -> bool:
    settings = policy.flow_control
    bands = (settings.default_priority_band, settings.default_negative_priority_band, *settings.priority_bands)
    return any(band.usage_ceiling < 1.0 for band in bands)
