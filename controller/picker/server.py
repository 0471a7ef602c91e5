"""The picker process: its sockets, and the loops that follow the pools file and the model servers."""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from controller.picker.app import App, admin_app, closing
from controller.picker.base_models import BaseModels
from controller.picker.completions import remove_socket
from controller.picker.completions_file import CompletionsFile
from controller.picker.config import PickerSettings
from controller.picker.metrics import State
from controller.picker.model_lists import ModelLists
from controller.picker.overdue import miss_overdue
from controller.picker.parts import Parts, SourceOf, parts_of
from controller.picker.picks import HTTP_ANSWERS, Picks
from controller.picker.policies import admissions
from controller.picker.replay.recorder import Recorder
from controller.picker.scrape import Scraper
from controller.picker.transport import MOST_TOGETHER, PickProtocol
from controller.picker.workers import Workers
from controller.serving import Server, server_of
from controller.turns import Turns

log = logging.getLogger(__name__)

KEEPALIVE: Final = 120
"""Seconds; longer than the 60 of NGINX's upstream connections, so that NGINX closes first and no request meets a
closing connection."""
BACKLOG: Final = 65_535
"""The kernel caps it at net.core.somaxconn; a full queue of a Unix socket refuses at once."""
GRACE: Final = 10
"""Seconds for requests in hand after a signal; a pick takes microseconds, an upload may take longer."""
FOLLOW_EVERY: Final = 0.1
"""Seconds between looks at the pools file; one look is a system call."""
TAKE_EVERY: Final = 0.025
"""Seconds between looks at what ended; one look is a system call. NGINX gathers for as long."""
LIST_EVERY: Final = 0.5
"""Seconds between looks for endpoints to be asked for their models, so that those of a pod that came are soon known."""
DIGEST_EVERY: Final = 1.0
"""Seconds between two looks at all endpoints, 0.1 ms for a hundred; readings do not come faster."""


class Service(Protocol):
    """Another way to ask the picker than over HTTP."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until told to stop, then finish the requests in hand. Raises OSError when it cannot be bound."""
        ...


ServiceOf = Callable[[Parts], Service]


async def serve(
    settings: PickerSettings,
    *,
    rng: random.Random,
    stopping: asyncio.Event,
    source_of: SourceOf | None = None,
    service_of: ServiceOf | None = None,
) -> None:
    """Serve until told to stop, then finish the requests in hand.

    `source_of` gives pools that come from elsewhere than the pools file. `service_of` makes another way to ask.
    Raises OSError when a socket cannot be bound, or the file of a trace cannot be opened.
    """
    parts = parts_of(settings, rng=rng, source_of=source_of)
    servers = _servers(parts, settings)
    # These look and tell until they are cancelled.
    loops = [
        asyncio.create_task(_follow(parts.state, parts.scraper, recorder=parts.recorder)),
        asyncio.create_task(_ask_for_models(parts.state, parts.models, base_models=parts.base_models)),
    ]
    if settings.completions is not None:
        file = CompletionsFile(settings.completions)
        loops.append(asyncio.create_task(_take_completions(parts.state, file, recorder=parts.recorder)))
    stopped = asyncio.create_task(stopping.wait())
    serving = [asyncio.create_task(server.serve([bound] if bound else None)) for server, bound in servers]
    services = [asyncio.create_task(service_of(parts).run(stopping))] if service_of is not None else []
    try:
        await asyncio.wait([stopped, *loops, *serving, *services], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        stopping.set()
        # Metrics answer while it drains.
        ended = [*await asyncio.gather(*services, return_exceptions=True)]
        parts.state.flow.stop()
        for server, _ in servers:
            server.should_exit = True
        ended += await asyncio.gather(*serving, return_exceptions=True)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await parts.scraper.stop()
        if parts.recorder is not None:
            parts.recorder.close()
    for result in ended:
        if isinstance(result, BaseException):
            raise result
    for loop in loops:
        if not loop.cancelled():
            await loop


def _servers(parts: Parts, settings: PickerSettings) -> list[tuple[Server, socket.socket | None]]:
    """Each with the socket it serves, or None when it binds its own."""
    admin = admin_app(parts.state, parts.registry)
    servers: list[tuple[Server, socket.socket | None]] = []
    if settings.socket is not None:
        # In a pod the picker may be there before whoever makes the rest of the state directory.
        settings.socket.parent.mkdir(mode=0o700, exist_ok=True)
        remove_socket(settings.socket)
        state = parts.state
        picks = Picks(
            parts.choosing(HTTP_ANSWERS),
            director=state.director,
            completions=state.completions,
            clock=state.clock,
            base_models=parts.base_models,
            recorder=parts.recorder,
        )
        protocol = _protocol_of(picks, lost=partial(_lose, state))
        servers.append((_server(closing(admin), http=protocol, uds=str(settings.socket)), None))
    if settings.metrics_address is not None:
        # Picks are for NGINX alone: over TCP only the admin routes answer.
        servers.append((_server(admin), _listen(settings.metrics_address)))
    return servers


def _protocol_of(picks: Picks, *, lost: Callable[[int], object]) -> type[asyncio.Protocol]:
    """What uvicorn makes of each connection: first it is asked for picks, and uvicorn gets the others.

    `lost` is told of the workers of NGINX that are no more.
    """
    turns = Turns(MOST_TOGETHER)
    workers = Workers(ended=lost)

    class Connection(PickProtocol):
        def __init__(self, *, server_state: ServerState, **given: Any) -> None:  # Any: uvicorn's own
            def other() -> asyncio.Protocol:
                return HttpToolsProtocol(server_state=server_state, **given)

            super().__init__(picks, connections=server_state.connections, turns=turns, workers=workers, other=other)

    return Connection


def _lose(state: State, worker: int) -> None:
    lost = state.in_flight.lose(worker)
    if lost:
        log.warning("requests ended with their worker", extra={"count": lost})


def _server(
    app: App, *, http: type[asyncio.Protocol] | Literal["httptools"] = "httptools", uds: str | None = None
) -> Server:
    return server_of(app, http=http, keepalive=KEEPALIVE, grace=GRACE, uds=uds, backlog=BACKLOG)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family)


async def _follow(state: State, scraper: Scraper, *, recorder: Recorder | None) -> None:
    digested = state.clock()
    while True:
        changed = state.file.refresh()
        if changed and recorder is not None and state.table.served is not None:
            recorder.pools(state.table.served.pools)
        if changed:
            state.flow.apply(admissions(state.table.pools.values()))
        if state.table.sweep() or changed:
            scraper.follow()
        # Readings come in between; a look costs a pool without a queue next to nothing.
        for pool in state.flow.gates:
            state.flow.changed(pool)
        now = state.clock()
        state.in_flight.settle(now)
        if now - digested >= DIGEST_EVERY:
            digested = now
            state.table.digest_readings()
            for endpoint in state.table.endpoints:
                miss_overdue(endpoint, now=now)
            if recorder is not None:
                recorder.look(state.table.endpoints)
        await asyncio.sleep(FOLLOW_EVERY)


async def _ask_for_models(state: State, models: ModelLists, *, base_models: BaseModels) -> None:
    while True:
        await models.ask()
        if models.is_complete:
            base_models.digest(state.table.listed.values(), now=state.clock())
        await asyncio.sleep(LIST_EVERY)


async def _take_completions(state: State, file: CompletionsFile, *, recorder: Recorder | None) -> None:
    with contextlib.closing(file):
        while True:
            if lines := file.read():
                state.completions.take(lines, now=state.clock())
                if recorder is not None:
                    recorder.ended(lines)
                for pool in state.flow.gates:
                    state.flow.changed(pool)
            await asyncio.sleep(TAKE_EVERY)
