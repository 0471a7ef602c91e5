"""From a request that was read to its answer: the list of models, admission, the pick, and what is noted of it.

How an answer looks is the transport's business: `Answers` makes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

from controller.picker.answers import ErrorAnswer, Outcome, Refusal
from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.decisions import Decisions
from controller.picker.director import Chosen, Director
from controller.picker.durations import PickDurations
from controller.picker.explain import asks, explanation
from controller.picker.flow_control.claims import priority_of, ticket_of
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.refusals import DROPS
from controller.picker.flow_control.refusals import Refusal as Dropped
from controller.picker.flow_control.tickets import Ticket
from controller.picker.listing import list_of_rule
from controller.picker.replay.recorder import Recorder
from controller.picker.requests import PickRequest
from controller.picker.trace import Trace

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)

_PICKED: Final = Outcome.PICKED.value
_LAST_RESORT: Final = Outcome.LAST_RESORT.value
_UNAVAILABLE: Final = 503
"""What a client would have got that hung up while it waited; the field counts these with the others."""


class Answers(Protocol[A_co]):
    """Makes the answers of a transport. `why` is the explanation as JSON for a request that may ask, else empty."""

    def picked(self, request: PickRequest, chosen: Chosen, why: bytes) -> A_co:
        """The endpoints that serve it, in order."""
        ...

    def refused(self, request: PickRequest, refusal: ErrorAnswer, why: bytes) -> A_co:
        """An error for the client."""
        ...

    def listed(self, models: bytes) -> A_co:
        """A list of models as JSON."""
        ...


class Choosing(Generic[A]):
    """Chooses for requests, whichever way they come."""

    def __init__(
        self,
        answers: Answers[A],
        *,
        director: Director,
        durations: PickDurations,
        flow: FlowController,
        decisions: Decisions,
        clock: Callable[[], float],
        recorder: Recorder | None = None,
    ) -> None:
        self._answers = answers
        self._director = director
        self._durations = durations
        self._flow = flow
        self._decisions = decisions
        self._clock = clock
        self._recorder = recorder

    def choose(self, request: PickRequest, *, started: float) -> A | Awaitable[A]:
        """The answer, which waits only where the pool is saturated. `started` is when the whole request was there."""
        headers = request.headers
        if request.method == "GET":
            models_of = self._director.models
            listed = list_of_rule(request.method, request.path, headers, pool=request.pool, models_of=models_of)
            if listed is not None:
                self._director.count(request.pool, Outcome.LISTED)
                return self._answers.listed(listed)
        unknown = self._director.unknown(request)
        if unknown is not None:
            why = self._decide(request, unknown.outcome.value, at=started, waited=0.0)
            return self._answers.refused(request, unknown, why)
        if asks(headers) and self._director.explains(request.pool):
            request.trace = Trace()
        gate = self._flow.gates.get(request.pool)
        if gate is None:
            return self._pick(request, started=started)
        request.priority = priority_of(headers, gate.policy, model=request.model)
        tokens = request.prompt_bytes // BYTES_PER_TOKEN
        # A retry was admitted once, and its first try is no longer in flight.
        if request.tried or gate.takes(request.priority, tokens=tokens, now=started):
            return self._pick(request, started=started)
        ticket = ticket_of(
            headers,
            gate.policy,
            request=request.id,
            pool=request.pool,
            priority=request.priority,
            size=request.size,
            tokens=tokens,
        )
        return self._wait(request, ticket)

    async def _wait(self, request: PickRequest, ticket: Ticket) -> A:
        """The answer once the request was admitted. It is cancelled when the client hangs up."""
        entered = self._clock()
        try:
            admitted = await self._flow.admit(ticket)
        except asyncio.CancelledError:
            self._director.refused(request, _UNAVAILABLE)
            self._decide(request, Outcome.HUNG_UP.value, at=entered, waited=self._clock() - entered)
            raise
        now = self._clock()
        if isinstance(admitted, Dropped):
            self._director.count(request.pool, Outcome.DROPPED)
            self._director.refused(request, admitted.status)
            why = self._decide(request, DROPS[admitted.drop].reason, at=entered, waited=now - entered)
            return self._answers.refused(request, admitted, why)
        answer = self._pick(request, started=now, waited=now - entered)
        self._director.queued(request, now - entered)
        return answer

    def _pick(self, request: PickRequest, *, started: float, waited: float = 0.0) -> A:
        """Nothing waits here, so the pick is counted before anything else is admitted."""
        picked: Chosen | Refusal
        try:
            picked = self._director.pick(request)
        except Exception:  # parts of others fail in any way: the client is told, and the other requests go on
            picked = self._director.broke(request)
        self._durations.observe(self._clock() - started)
        if self._recorder is not None:
            self._recorder.picked(request, picked)
        if isinstance(picked, Refusal):
            self._flow.changed(request.pool)
            why = self._decide(request, picked.outcome.value, at=started, waited=waited)
            return self._answers.refused(request, picked, why)
        outcome = _LAST_RESORT if request.is_last_resort else _PICKED
        if request.trace is None:
            self._decisions.add(request, at=started, outcome=outcome, choice=picked[0].address, waited=waited)
            return self._answers.picked(request, picked, b"")
        why = self._decide(request, outcome, chosen=picked, at=started, waited=waited)
        return self._answers.picked(request, picked, why)

    def _decide(self, request: PickRequest, outcome: str, *, chosen: Chosen = (), at: float, waited: float) -> bytes:
        """Note a decision. Returns why it was made, for a request that asked; else nothing."""
        choice = chosen[0].address if chosen else ""
        if request.trace is None:
            self._decisions.add(request, at=at, outcome=outcome, choice=choice, waited=waited)
            return b""
        why = explanation(request, request.trace, outcome=outcome, chosen=chosen, waited=waited)
        self._decisions.add(request, at=at, outcome=outcome, choice=choice, waited=waited, explanation=why)
        return why
