"""The picker process: its sockets, and the loops that follow the pools file and the model servers."""

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from controller.picker.app import App, Picks, admin_app, closing
from controller.picker.base_models import BaseModels
from controller.picker.completions import Completions, remove_socket
from controller.picker.completions_file import CompletionsFile
from controller.picker.config import PickerSettings
from controller.picker.decisions import Decisions
from controller.picker.director import Director
from controller.picker.flow_control.claims import Tenants
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.loads import EndpointLoad, load_of
from controller.picker.inflight import InFlight
from controller.picker.metrics import State, registry_of
from controller.picker.model_lists import PATH as MODELS_PATH
from controller.picker.model_lists import ModelLists
from controller.picker.overdue import miss_overdue
from controller.picker.pages import HttpPages
from controller.picker.policies import admissions, profile_of
from controller.picker.pools import PoolsFile, PoolState, PoolTable
from controller.picker.replay.events import VERSION, Opened
from controller.picker.replay.recorder import Recorder, open_recorder
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import Profile
from controller.picker.scrape import Scraper
from controller.picker.transport import PickProtocol
from controller.picker.watch import Watch
from controller.plugins.installed import installed

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


class _Server(uvicorn.Server):
    """uvicorn's server, stopped by us: its own handling of signals ends the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class _Parts:
    state: State
    scraper: Scraper
    models: ModelLists
    base_models: BaseModels
    recorder: Recorder | None
    servers: tuple[tuple[_Server, socket.socket | None], ...]
    """Each with the socket it serves, or None when it binds its own."""


async def serve(settings: PickerSettings, *, rng: random.Random, stopping: asyncio.Event) -> None:
    """Serve until told to stop, then finish the requests in hand.

    Raises OSError when a socket cannot be bound, or the file of a trace cannot be opened.
    """
    parts = _build(settings, rng=rng)
    following = asyncio.create_task(_follow(parts.state, parts.scraper, recorder=parts.recorder))
    file = CompletionsFile(settings.completions)
    ending = asyncio.create_task(_take_completions(parts.state, file, recorder=parts.recorder))
    asking = asyncio.create_task(_ask_for_models(parts.state, parts.models, base_models=parts.base_models))
    stopped = asyncio.create_task(stopping.wait())
    serving = [asyncio.create_task(server.serve([bound] if bound else None)) for server, bound in parts.servers]
    try:
        await asyncio.wait([stopped, following, ending, asking, *serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        parts.state.flow.stop()
        for server, _ in parts.servers:
            server.should_exit = True
        ended = await asyncio.gather(*serving, return_exceptions=True)
        following.cancel()
        ending.cancel()
        asking.cancel()
        await asyncio.gather(following, ending, asking, return_exceptions=True)
        await parts.scraper.stop()
        if parts.recorder is not None:
            parts.recorder.close()
    for result in ended:
        if isinstance(result, BaseException):
            raise result
    for task in (following, ending, asking):
        if not task.cancelled():
            await task


def _build(settings: PickerSettings, *, rng: random.Random) -> _Parts:
    clock = time.monotonic
    in_flight = InFlight()
    watch = Watch(scrape_interval=settings.scrape_interval, staleness=settings.staleness)
    table = PoolTable(in_flight, watch)
    completions = Completions(in_flight)

    catalogue = installed()

    def profile(pool: PoolState) -> Profile:
        surroundings = Surroundings(
            staleness=pool.watch.staleness, rng=rng, memory=pool.memory, replicas=settings.replicas
        )
        return profile_of(pool, surroundings, catalogue=catalogue)

    def loads(pool: str, now: float) -> Sequence[EndpointLoad]:
        known = table.pools.get(pool)
        return [load_of(endpoint, now=now) for endpoint in known.endpoints] if known else ()

    director = Director(table=table, in_flight=in_flight, profile_of=profile, clock=clock)
    later = asyncio.get_running_loop().call_later
    flow = FlowController(loads=loads, tenants=Tenants(os.urandom(16)), clock=clock, later=later)
    decisions = Decisions(clock)
    state = State(
        table=table,
        file=PoolsFile(settings.pools, table),
        in_flight=in_flight,
        completions=completions,
        director=director,
        flow=flow,
        decisions=decisions,
        clock=clock,
    )
    registry, durations = registry_of(state)
    admin = admin_app(state, registry)
    # In a pod the picker may be there before whoever makes the rest of the state directory.
    settings.socket.parent.mkdir(mode=0o700, exist_ok=True)
    remove_socket(settings.socket)
    listening = _listen(settings.metrics_address) if settings.metrics_address is not None else None
    recorder = _recorder(settings, rng=rng, clock=clock)
    base_models = BaseModels()
    picks = Picks(
        director=director,
        durations=durations,
        completions=completions,
        flow=flow,
        decisions=decisions,
        clock=clock,
        base_models=base_models,
        recorder=recorder,
    )
    servers: list[tuple[_Server, socket.socket | None]] = [
        (_server(closing(admin), http=_protocol_of(picks), uds=str(settings.socket)), None)
    ]
    if listening is not None:
        # Picks are for NGINX alone: over TCP only the admin routes answer.
        servers.append((_server(admin), listening))
    scraper = Scraper(table=table, in_flight=in_flight, pages=HttpPages(), clock=clock)
    models = ModelLists(table=table, pages=HttpPages(MODELS_PATH, accept="application/json"), clock=clock)
    return _Parts(state, scraper, models, base_models, recorder, tuple(servers))


def _recorder(settings: PickerSettings, *, rng: random.Random, clock: Callable[[], float]) -> Recorder | None:
    """What writes the trace, if one is asked for; ties are broken from here on as the trace says."""
    if settings.record is None:
        return None
    seed = rng.getrandbits(32)
    rng.seed(seed)
    opened = Opened(at=0.0, version=VERSION, staleness=settings.staleness, seed=seed, replicas=settings.replicas)
    return open_recorder(settings.record, limit=settings.record_limit, clock=clock, opened=opened)


def _protocol_of(picks: Picks) -> type[asyncio.Protocol]:
    """What uvicorn makes of each connection: first it is asked for picks, and uvicorn gets the others."""

    class Connection(PickProtocol):
        def __init__(self, *, server_state: ServerState, **given: Any) -> None:  # Any: uvicorn's own
            def other() -> asyncio.Protocol:
                return HttpToolsProtocol(server_state=server_state, **given)

            super().__init__(picks, connections=server_state.connections, other=other)

    return Connection


def _server(
    app: App, *, http: type[asyncio.Protocol] | Literal["httptools"] = "httptools", uds: str | None = None
) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            uds=uds,
            http=http,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEPALIVE,
            timeout_graceful_shutdown=GRACE,
        )
    )


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
            base_models.digest(state.table.pools.values(), now=state.clock())
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
