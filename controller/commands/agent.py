"""`infergate agent`: keeps nginx in a pod at what the control plane says."""

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from controller.agent import nginx
from controller.agent.apply import Options
from controller.agent.config import AgentSettings
from controller.agent.control_plane import Access, ControlPlane
from controller.agent.follow import Follower
from controller.agent.judge import Judge
from controller.agent.machine import Machine
from controller.agent.metrics import metrics_of
from controller.agent.standing import Standing
from controller.agent.telling import keep_telling
from controller.dataplane.local import LocalDataPlane
from controller.errors import SettingInvalid
from controller.probes import Probes
from controller.settings import usable_files, usable_processors

log = logging.getLogger(__name__)

_AGAIN: Final = 5.0
"""Seconds after which a task that was cancelled is cancelled again."""

_OPTIONS = {
    "server": ("URL", None, "https://HOST:PORT of the control plane"),
    "gateway": ("NS/NAME", None, "Gateway that is served"),
    "token_file": ("FILE", "/var/run/secrets/infergate/token", "token of this instance"),
    "ca_file": ("FILE", "/var/run/secrets/infergate/ca.crt", "certificates by which the control plane is known"),
    "state": ("DIR", "/var/lib/infergate/state", "directory for releases and sockets, shared with the picker"),
    "nginx": ("PATH", None, "nginx binary"),
    "probes": ("[HOST:]PORT", "8081", "where /readyz, /healthz and /metrics answer"),
    "drain_delay": ("SECONDS", "5", "from SIGTERM until no more connections are taken"),
    "grace": ("SECONDS", "20", "after that, for requests in hand"),
}
"""Each with its placeholder, default and meaning; also read from the variable `INFERGATE_` + its name in upper case."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, (placeholder, default, meaning) in _OPTIONS.items():
        variable = f"INFERGATE_{name.upper()}"
        shown = f"{meaning} ({variable}{f'; default: {default}' if default else ''})"
        given = os.environ.get(variable) or default
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=placeholder, default=given, help=shown)


def run(arguments: argparse.Namespace) -> int:
    return asyncio.run(_until_signal(_settings(arguments)))


def _settings(arguments: argparse.Namespace) -> AgentSettings:
    """Raises SettingInvalid, which names the option."""
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    try:
        return AgentSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as problem:
        first = problem.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        found = "missing" if first["type"] == "missing" else f"{str(first['input'])[:80]}: {first['msg'].lower()}"
        raise SettingInvalid(f"{option} {found}") from problem


async def _until_signal(settings: AgentSettings) -> int:
    """Raises NginxMissing, StateUnusable and AddressUnusable."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stopping.set)
    binary = nginx.find(settings.nginx, environment=os.environ)
    options = Options(drain=settings.grace, stdout=nginx.openable(sys.stdout))
    async with LocalDataPlane(settings.state, binary, (), options=options) as data_plane:
        await Agent(settings, data_plane).serve(stopping)
    return 0


class Agent:
    """One instance of a data plane."""

    def __init__(self, settings: AgentSettings, data_plane: LocalDataPlane) -> None:
        self._settings = settings
        self._data_plane = data_plane
        self._standing = Standing()
        self._metrics = metrics_of(lambda: self._standing.is_serving)
        access = Access(settings.server, settings.gateway, Path(settings.token_file), Path(settings.ca_file))
        # One line each: a report does not wait behind a question that waits for news.
        self._asking, self._reporting = ControlPlane(access), ControlPlane(access)
        self._rng = random.Random()
        self._follower = Follower(
            self._asking,
            data_plane,
            self._standing,
            metrics=self._metrics,
            rng=self._rng,
            fit=Machine(usable_processors, usable_files).fit,
        )

    async def serve(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set, and then until the requests in hand have ended or had their time."""
        self._standing.looked_at = asyncio.get_running_loop().time()
        judge = Judge(self._data_plane, self._standing)
        probes = Probes(
            self._metrics.registry,
            why_not_ready=judge.why_not_ready,
            why_not_healthy=judge.why_not_healthy,
            more=self._data_plane.relay_metrics,
        )
        async with probes.listening(self._settings.probes) as port:
            log.info("agent begins", extra={"gateway": self._settings.gateway, "probes": port})
            following = asyncio.create_task(self._follower.run(), name="follow")
            telling = asyncio.create_task(keep_telling(self._reporting, self._standing, rng=self._rng), name="tell")
            stopped = asyncio.create_task(stopping.wait())
            tasks = {following, telling, stopped}
            try:
                await asyncio.wait({following, telling, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done():
                    tasks.add(await self._leave(following))
            finally:
                await _end(tasks)
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                await self._asking.close()
                await self._reporting.close()
            for result in ended:
                if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                    raise result

    async def _leave(self, following: asyncio.Task[None]) -> asyncio.Task[None]:
        """Give up connections once nobody sends new ones. Returns the task that follows the pools meanwhile."""
        self._standing.leave()
        log.info("instance ends", extra={"delay": self._settings.drain_delay, "grace": self._settings.grace})
        await asyncio.wait({following}, timeout=self._settings.drain_delay)
        await _end({following})
        pools = asyncio.create_task(self._follower.follow_pools(), name="follow pools")
        await self._data_plane.stop_nginx()
        log.info("nginx has ended")
        return pools


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:  # Any: their results are nobody's business here
    """Cancel tasks, again where one goes on: a library about to raise an error of its own may lose the first."""
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN)
