"""The relay at work: its socket, and the loops that follow the pools and close what is idle."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST

from controller.headers import POOL_HEADER
from controller.relay.changes import value_of
from controller.relay.config import RelaySettings
from controller.relay.endpoints import Endpoints
from controller.relay.exchange import serve
from controller.relay.http1 import Fields
from controller.relay.metrics import RelayCollector, exposition
from controller.relay.pickers import Pickers
from controller.relay.pieces import Budget
from controller.relay.pools import EVERY, PoolTable
from controller.relay.relayed import Services
from controller.relay.server import Reply, Request, ServerConnection
from controller.relay.watching import Patience

log = logging.getLogger(__name__)

BACKLOG: Final = 65_535
"""The kernel caps it at net.core.somaxconn; a full queue of a Unix socket refuses at once."""
_GRACE: Final = 3.0
"""Seconds for requests in hand after a signal; NGINX has ended before in the usual course."""
_TEXT: Final[Fields] = [(b"content-type", b"text/plain")]
_METRICS: Final[Fields] = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
_JSON: Final[Fields] = [(b"content-type", b"application/json")]


async def run_until(settings: RelaySettings, *, stopping: asyncio.Event) -> None:
    """Serve until told to stop. Raises OSError when the socket cannot be bound."""
    patience = Patience(connect=settings.connect_timeout, answer=settings.answer_timeout, silence=settings.silence)
    services = Services(
        table=PoolTable(settings.pools),
        pickers=Pickers(patience),
        endpoints=Endpoints(),
        patience=patience,
        budget=Budget(settings.memory, directory=str(settings.spill) if settings.spill is not None else None),
    )
    collector = RelayCollector(services.tallies, services.pickers, held=lambda: settings.memory - services.budget.left)
    connections: set[ServerConnection] = set()

    async def answer(request: Request, reply: Reply) -> None:
        if value_of(request.fields, POOL_HEADER.encode()) is not None:
            await serve(request, reply, services)
        else:
            await _answer_about_itself(request, reply, services, collector=collector)

    settings.socket.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        settings.socket.unlink()
    following = asyncio.create_task(_follow(services))
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: ServerConnection(answer, connections), path=str(settings.socket), backlog=BACKLOG
    )
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        server.close()
        await _finish(connections)
        following.cancel()
        services.pickers.close()
        services.endpoints.close()
    if not following.cancelled() and following.done():
        following.result()


async def _finish(connections: set[ServerConnection]) -> None:
    if tasks := {connection.task for connection in connections if connection.task is not None}:
        await asyncio.wait(tasks, timeout=_GRACE)
    for connection in tuple(connections):
        connection.close()


async def _follow(services: Services) -> None:
    table = services.table
    while True:
        before = {address for pool in table.pools.values() for address in pool.endpoints}
        if table.look():
            services.pickers.keep({place for pool in table.pools.values() for place in pool.places})
            now = {address for pool in table.pools.values() for address in pool.endpoints}
            services.endpoints.forget(tuple(before - now))
            services.tallies.keep(table.pools)
        services.endpoints.sweep()
        services.pickers.sweep()
        await asyncio.sleep(EVERY)


async def _answer_about_itself(
    request: Request, reply: Reply, services: Services, *, collector: RelayCollector
) -> None:
    etag = services.table.etag
    match request.target:
        case b"/healthz":
            await reply.whole(200, _TEXT, b"ok\n")
        case b"/readyz" if etag is not None:
            await reply.whole(200, _TEXT, f"ok {etag}\n".encode())
        case b"/readyz":
            await reply.whole(503, _TEXT, b"no pools were read yet\n")
        case b"/pickers":
            known = {"pickers": services.pickers.states(), "exchanges": services.tallies.totals()}
            await reply.whole(200, _JSON, json.dumps(known, indent=2).encode() + b"\n")
        case b"/metrics":
            await reply.whole(200, _METRICS, exposition(collector))
        case _:
            await reply.whole(404, _TEXT, b"not found\n")
