"""FastAPI for people, probes and Prometheus."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from controller.picker.decisions import KEPT
from controller.picker.metrics import State
from controller.picker.request_page import request_page
from controller.picker.views import pools_view

Message = MutableMapping[str, Any]  # Any: the ASGI specification gives each key a type of its own
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


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
        pieces = [generate_latest(registry)]
        for piece in request_page(state.table, state.in_flight):
            pieces.append(piece)
            # Picks wait meanwhile.
            await asyncio.sleep(0)
        return Response(b"".join(pieces), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if state.table.etag is None:
            return Response("pools not read yet\n", status_code=503, media_type="text/plain")
        return Response(f"ok {state.table.etag}\n", media_type="text/plain")

    return app
