"""What the picker answers: picks and the news of their first bytes, and FastAPI for people, probes and Prometheus.

A request that carries the pool header, which nginx sets on all that clients send, is a pick whatever its path.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from controller.bundle import BASE_MODELS_PATH, FIRST_BYTES_PATH
from controller.picker.answers import Outcome, Refusal, answer_of_pick, answer_of_refusal
from controller.picker.base_models import BaseModels
from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.completions import Completions
from controller.picker.decisions import KEPT, Decisions
from controller.picker.director import Chosen, Director
from controller.picker.explain import asks, explanation, header_of
from controller.picker.flow_control.claims import ticket_of
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.refusals import DROPS
from controller.picker.flow_control.refusals import Refusal as Dropped
from controller.picker.flow_control.tickets import Ticket
from controller.picker.listing import answer_elsewhere, answer_of_rule, is_elsewhere
from controller.picker.metrics import PickDurations, State
from controller.picker.replay.recorder import Recorder
from controller.picker.requests import BodyPieces, Headers, NotFromGateway, PickRequest, is_pick, pick_request
from controller.picker.trace import Trace
from controller.picker.views import pools_view

Message = MutableMapping[str, Any]  # Any: the ASGI specification gives each key a type of its own
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_NOT_FROM_GATEWAY: Final = Refusal(Outcome.NOT_FROM_GATEWAY, 500, "the request did not come from the gateway")
_PICKED: Final = Outcome.PICKED.value
_FROM_GATEWAY: Final = frozenset({("POST", FIRST_BYTES_PATH), ("GET", BASE_MODELS_PATH)})
"""Methods and paths of what nginx asks beside picks."""
_TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Picks:
    """Answers picks, and takes what NGINX tells of the requests that it sent on. See `Exchange`."""

    def __init__(
        self,
        *,
        director: Director,
        durations: PickDurations,
        completions: Completions,
        flow: FlowController,
        decisions: Decisions,
        clock: Callable[[], float],
        base_models: BaseModels,
        recorder: Recorder | None = None,
    ) -> None:
        self._director = director
        self._flow = flow
        self._durations = durations
        self._completions = completions
        self._decisions = decisions
        self._recorder = recorder
        self._base_models = base_models
        self._clock = clock

    def takes(self, method: str, path: str, headers: Headers) -> bool:
        """Whether NGINX asks."""
        return is_pick(headers) or is_elsewhere(headers) or (method, path) in _FROM_GATEWAY

    def answer(self, method: str, path: str, headers: Headers, body: BodyPieces) -> bytes | Awaitable[bytes]:
        """The answer to a whole request, which waits only where the pool is saturated."""
        if not is_pick(headers):
            if is_elsewhere(headers):
                self._director.count("", Outcome.LISTED)
                return answer_elsewhere(method, path, headers, models_of=self._director.models)
            if path == BASE_MODELS_PATH:
                return self._base_models.answer(headers.get(b"if-none-match", b""))
            self._completions.take_first_bytes(body.kept, now=self._clock())
            if self._recorder is not None:
                self._recorder.began(body.kept)
            return _TAKEN
        started = self._clock()
        try:
            request = pick_request(method, path, headers, body, target_of=self._director.target)
        except NotFromGateway:
            self._director.count("", Outcome.NOT_FROM_GATEWAY)
            return answer_of_refusal(_NOT_FROM_GATEWAY, method=method, path=path)
        listed = answer_of_rule(method, path, headers, pool=request.pool, models_of=self._director.models)
        if listed is not None:
            self._director.count(request.pool, Outcome.LISTED)
            return listed
        unknown = self._director.unknown(request)
        if unknown is not None:
            more = self._decide(request, unknown.outcome.value, at=started, waited=0.0)
            return answer_of_refusal(unknown, method=method, path=path, more=more)
        if asks(headers) and self._director.explains(request.pool):
            request.trace = Trace()
        gate = self._flow.gates.get(request.pool)
        if gate is None or request.tried:
            # A retry was admitted once, and its first try is no longer in flight.
            return self._pick(request, started=started)
        tokens = request.prompt_bytes // BYTES_PER_TOKEN
        ticket = ticket_of(
            headers,
            gate.policy,
            request=request.id,
            pool=request.pool,
            size=request.size,
            tokens=tokens,
            model=request.model,
        )
        if gate.takes(ticket, now=started):
            return self._pick(request, started=started)
        body.drop()
        return self._wait(request, ticket)

    async def _wait(self, request: PickRequest, ticket: Ticket) -> bytes:
        """The answer once the request was admitted. It is cancelled when the client hangs up."""
        entered = self._clock()
        try:
            admitted = await self._flow.admit(ticket)
        except asyncio.CancelledError:
            self._decide(request, Outcome.HUNG_UP.value, at=entered, waited=self._clock() - entered)
            raise
        now = self._clock()
        if isinstance(admitted, Dropped):
            self._director.count(request.pool, Outcome.DROPPED)
            more = self._decide(request, DROPS[admitted.drop].reason, at=entered, waited=now - entered)
            return answer_of_refusal(admitted, method=request.method, path=request.path, more=more)
        return self._pick(request, started=now, waited=now - entered)

    def _pick(self, request: PickRequest, *, started: float, waited: float = 0.0) -> bytes:
        """Nothing waits here, so the pick is counted before anything else is admitted."""
        picked = self._director.pick(request)
        self._durations.observe(self._clock() - started)
        if self._recorder is not None:
            self._recorder.picked(request, picked)
        if isinstance(picked, Refusal):
            self._flow.changed(request.pool)
            more = self._decide(request, picked.outcome.value, at=started, waited=waited)
            return answer_of_refusal(picked, method=request.method, path=request.path, more=more)
        if request.trace is None:
            self._decisions.add(request, at=started, outcome=_PICKED, choice=picked[0].address, waited=waited)
            return answer_of_pick(request, picked)
        more = self._decide(request, _PICKED, chosen=picked, at=started, waited=waited)
        return answer_of_pick(request, picked, more=more)

    def _decide(self, request: PickRequest, outcome: str, *, chosen: Chosen = (), at: float, waited: float) -> bytes:
        """Note a decision. Returns the header line that tells why, for a request that asked; else nothing."""
        choice = chosen[0].address if chosen else ""
        if request.trace is None:
            self._decisions.add(request, at=at, outcome=outcome, choice=choice, waited=waited)
            return b""
        why = explanation(request, request.trace, outcome=outcome, chosen=chosen, waited=waited)
        self._decisions.add(request, at=at, outcome=outcome, choice=choice, waited=waited, explanation=why)
        return header_of(why)

    def hung_up(self) -> None:
        """A client went away before its request was read; nothing of a feed that breaks off is taken."""
        self._director.count("", Outcome.HUNG_UP)


def closing(app: App) -> App:
    """An ASGI application that closes the connection after each answer.

    A connection that was handed to uvicorn does not come back, and the next request on it may be a pick.
    """

    async def close(scope: Message, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, send_closing)

    return close


def admin_app(state: State, registry: CollectorRegistry) -> FastAPI:
    """The routes for people, probes and Prometheus."""
    app = FastAPI(title="Infergate endpoint picker", openapi_url=None)

    @app.get("/pools")
    async def pools() -> Response:
        body = msgspec.json.format(msgspec.json.encode(pools_view(state)), indent=2)
        return Response(body + b"\n", media_type="application/json")

    @app.get("/decisions")
    async def decisions(pool: str | None = None, limit: Annotated[int, Query(ge=1, le=KEPT)] = KEPT) -> Response:
        body = msgspec.json.encode({"decisions": state.decisions.view(pool=pool, limit=limit)})
        return Response(msgspec.json.format(body, indent=2) + b"\n", media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if state.table.etag is None:
            return Response("pools not read yet\n", status_code=503, media_type="text/plain")
        return Response(f"ok {state.table.etag}\n", media_type="text/plain")

    return app
