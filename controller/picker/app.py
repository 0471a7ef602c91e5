"""The picker's HTTP side: the pick as plain ASGI, and FastAPI for everything else.

A request that carries the pool header, which nginx sets on all that clients send, is a pick whatever its path. It
does not pass FastAPI's router, which costs 92 us of CPU per request of 1 KB where plain ASGI takes 28.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest

from controller.bundle import COMPLETIONS_PATH
from controller.picker.answers import Outcome, Refusal, headers_of_pick, headers_of_refusal
from controller.picker.completions import Completions
from controller.picker.director import Director
from controller.picker.metrics import State
from controller.picker.requests import HungUp, NotFromGateway, Receive, Scope, is_pick, read_pick
from controller.picker.views import pools_view

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]  # Any: the ASGI specification types each key on its own
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NOT_FROM_GATEWAY = Refusal(Outcome.NOT_FROM_GATEWAY, 500, "the request did not come from the gateway")


class PickerApp:
    """Answers picks, and hands every other request to the admin app."""

    def __init__(
        self,
        *,
        director: Director,
        admin: App,
        durations: Histogram,
        completions: Completions,
        clock: Callable[[], float],
    ) -> None:
        self._director = director
        self._admin = admin
        self._durations = durations
        self._completions = completions
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if is_pick(headers):
                await self._pick(scope, headers, receive, send)
                return
            if scope["path"] == COMPLETIONS_PATH and scope["method"] == "POST":
                await self._complete(receive, send)
                return
        await self._admin(scope, receive, send)

    async def _pick(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        try:
            request = await read_pick(scope, headers, receive)
        except HungUp:
            self._director.count("", Outcome.HUNG_UP)
            return
        except NotFromGateway:
            self._director.count("", Outcome.NOT_FROM_GATEWAY)
            await _refuse(_NOT_FROM_GATEWAY, send)
            return
        started = self._clock()
        # From here to the answer nothing waits, so no client can hang up in between.
        picked = self._director.pick(request)
        self._durations.observe(self._clock() - started)
        if isinstance(picked, Refusal):
            await _refuse(picked, send)
            return
        headers_sent = headers_of_pick(request.then, picked.address)
        if b"upgrade" in headers:
            # After a request for an upgrade the parser reads no further request from the connection.
            headers_sent.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": headers_sent})
        await send({"type": "http.response.body"})

    async def _complete(self, receive: Receive, send: Send) -> None:
        """Take the ends of requests. A post that breaks off comes again whole, so nothing of it is taken."""
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._completions.take(b"".join(pieces), now=self._clock())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = refusal.body
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers_of_refusal(refusal, body)})
    await send({"type": "http.response.body", "body": body})


def admin_app(state: State, registry: CollectorRegistry) -> FastAPI:
    """The routes for people, probes and Prometheus."""
    app = FastAPI(title="Infergate endpoint picker", openapi_url=None)

    @app.get("/pools")
    async def pools() -> Response:
        body = msgspec.json.format(msgspec.json.encode(pools_view(state)), indent=2)
        return Response(body + b"\n", media_type="application/json")

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
