"""The picker process: its sockets, and the loops that follow the pools file and the model servers."""

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import uvicorn

from controller.picker.app import App, PickerApp, admin_app
from controller.picker.completions import Completions, remove_socket
from controller.picker.config import PickerSettings
from controller.picker.director import Director
from controller.picker.inflight import InFlight
from controller.picker.metrics import State, registry_of
from controller.picker.pages import HttpPages
from controller.picker.pools import PoolsFile, PoolTable
from controller.picker.scheduling.base import Surroundings
from controller.picker.scheduling.profile import default_profile
from controller.picker.scrape import Scraper

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


class _Server(uvicorn.Server):
    """uvicorn's server, stopped by us: its own handling of signals ends the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class _Parts:
    state: State
    scraper: Scraper
    servers: tuple[tuple[_Server, socket.socket | None], ...]
    """Each with the socket it serves, or None when it binds its own."""


async def serve(settings: PickerSettings, *, rng: random.Random, stopping: asyncio.Event) -> None:
    """Serve until told to stop, then finish the requests in hand.

    Raises OSError when a socket cannot be bound.
    """
    parts = _build(settings, rng=rng)
    following = asyncio.create_task(_follow(parts.state.file, parts.state.table, parts.scraper))
    stopped = asyncio.create_task(stopping.wait())
    serving = [asyncio.create_task(server.serve([bound] if bound else None)) for server, bound in parts.servers]
    try:
        await asyncio.wait([stopped, following, *serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        for server, _ in parts.servers:
            server.should_exit = True
        ended = await asyncio.gather(*serving, return_exceptions=True)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await parts.scraper.stop()
    for result in ended:
        if isinstance(result, BaseException):
            raise result
    if not following.cancelled():
        await following


def _build(settings: PickerSettings, *, rng: random.Random) -> _Parts:
    clock = time.monotonic
    in_flight = InFlight()
    table = PoolTable(in_flight)
    completions = Completions(in_flight)
    profile = default_profile(Surroundings(staleness=settings.staleness, rng=rng))
    director = Director(table=table, in_flight=in_flight, profile=profile, clock=clock)
    state = State(
        table=table,
        file=PoolsFile(settings.pools, table),
        in_flight=in_flight,
        completions=completions,
        director=director,
        staleness=settings.staleness,
        clock=clock,
    )
    registry, durations = registry_of(state)
    admin = admin_app(state, registry)
    remove_socket(settings.socket)
    listening = _listen(settings.metrics_address) if settings.metrics_address is not None else None
    app = PickerApp(
        director=director,
        admin=admin,
        durations=durations,
        completions=completions,
        clock=clock,
    )
    servers: list[tuple[_Server, socket.socket | None]] = [(_server(app, uds=str(settings.socket)), None)]
    if listening is not None:
        # Picks are for NGINX alone: over TCP only the admin routes answer.
        servers.append((_server(admin), listening))
    scraper = Scraper(
        table=table, in_flight=in_flight, pages=HttpPages(), interval=settings.scrape_interval, clock=clock
    )
    return _Parts(state, scraper, tuple(servers))


def _server(app: App, *, uds: str | None = None) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            uds=uds,
            http="httptools",
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


async def _follow(file: PoolsFile, table: PoolTable, scraper: Scraper) -> None:
    while True:
        changed = file.refresh()
        if table.sweep() or changed:
            scraper.follow()
        await asyncio.sleep(FOLLOW_EVERY)
