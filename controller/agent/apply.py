"""Brings a bundle live: write a release, make it current, reload, and ask a new worker for its version.

What nginx was serving goes on being served when any of these steps fails. A release is tested before nginx starts with
it. A running nginx tests what it loads itself, and keeps what it has when that fails; testing before would only take as
long once more, 170 ms with 2,000 locations. So it is tested only where nginx complains, to know what it refuses.
"""

import asyncio
import logging
import os
import re
import signal
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from controller.agent import client, leftovers, releases
from controller.agent.generations import Generations
from controller.agent.nginx import Nginx, announce, check, parse, refusal
from controller.agent.releases import Release
from controller.agent.state import PICKER_SOCKET, RELAY_SOCKET, State
from controller.agent.supervise import Program, Supervisor
from controller.bundle import Bundle
from controller.errors import NginxNotRunning, NginxRefused

log = logging.getLogger(__name__)

_CURRENT: Final = "current/nginx.conf"
_FIRST_POLL: Final = 0.002
"""Seconds between two questions for the version, a tenth more each time: a reload of a small file takes 6 ms."""
_LAST_POLL: Final = 0.05
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.DEBUG,
    "notice": logging.DEBUG,  # some ten lines for each reload
    "warn": logging.WARNING,
    "error": logging.WARNING,  # a request that failed; the access log has it too
    "crit": logging.ERROR,
    "alert": logging.ERROR,
    "emerg": logging.ERROR,
}
_HARMLESS: Final = re.compile(r" js periodic .* is already running, killing previous instance| pending events$")
"""The picker took longer than an interval to take first bytes: the next turn brings them again."""


@dataclass(frozen=True)
class Applied:
    """A version that a worker of nginx answers for."""

    version: str
    number: int
    """Of its release."""
    is_reloaded: bool
    """False when the version was already live."""
    seconds: float
    """From the call until a worker answered."""


@dataclass(frozen=True)
class Options:
    """How nginx is run."""

    drain: float = 10.0
    """Seconds that requests in progress have to end when nginx is stopped."""
    confirm: float = 10.0
    """Seconds within which a new worker must answer."""
    keep: int = 4
    """Releases that stay on disk."""
    stdout: int | None = None
    """Descriptor that `/dev/stdout` of nginx leads to, for an access log; None sends its lines to the log."""


class Applier:
    """One nginx and its releases. Use it as a context: nginx is stopped at its end."""

    def __init__(self, state: State, nginx: Nginx, *, options: Options = Options()) -> None:
        self._state = state
        self._nginx = nginx
        self._options = options
        self._heard: deque[str] = deque(maxlen=200)
        self._supervisor = Supervisor(_program(nginx, state, options), hear=self._hear)
        self._turn = asyncio.Lock()
        self._live: Release | None = None
        self._generations = Generations()

    @property
    def live(self) -> str | None:
        """The version that a worker last answered for; None before the first and while one is being brought up."""
        return self._live.version if self._live else None

    @property
    def pid(self) -> int | None:
        """Of the nginx master; None while it does not run."""
        return self._supervisor.pid

    @property
    def reload_pause(self) -> float:
        """Seconds that the next reload should wait, because workers of many earlier ones still have streams."""
        return self._generations.pause(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        announce(self._nginx)
        await leftovers.take_down(self._state, [])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def is_started(self) -> bool:
        """Whether nginx runs, or will when its time comes."""
        return self._supervisor.is_started

    async def stop(self) -> None:
        """End nginx once the requests in hand are done, or have had their time."""
        await self._supervisor.stop()

    async def apply(self, bundle: Bundle) -> Applied | NginxRefused:
        """Bring a bundle live; one at a time, in the order of the calls.

        Returns when a new worker answers and the old ones accept no more. Raises StateUnusable when
        the release cannot be written, and NginxNotRunning when nginx neither answers nor says why.
        """
        async with self._turn:
            begun = asyncio.get_running_loop().time()
            if self._live is not None and self._live.version == bundle.version:
                return await self._bring_up(self._live, begun=begun, is_new=False)
            release = self._live or await asyncio.to_thread(releases.current, self._state)
            if release is None or release.version != bundle.version:
                release = await asyncio.to_thread(releases.write, self._state, bundle)
            outcome = await self._bring_up(release, begun=begun, is_new=True)
            await asyncio.to_thread(releases.prune, self._state, keep=self._options.keep)
            return outcome

    async def resume(self) -> Applied | NginxRefused | None:
        """Serve the release that was current when this state directory was last used; None when there is none."""
        async with self._turn:
            begun = asyncio.get_running_loop().time()
            release = await asyncio.to_thread(releases.current, self._state)
            return await self._bring_up(release, begun=begun, is_new=True) if release else None

    async def _bring_up(self, release: Release, *, begun: float, is_new: bool) -> Applied | NginxRefused:
        loop = asyncio.get_running_loop()
        if is_new:
            is_tested = self._live is None
            refused = await self._test(release) if is_tested else None
            refused = refused or await self._go_live(release, is_tested=is_tested)
        else:
            refused = await self._confirm(release)
        if refused is not None:
            log.warning("release refused", extra={"version": release.version, "release": release.number})
            return refused
        self._live = release
        return Applied(release.version, release.number, is_new, loop.time() - begun)

    async def _test(self, release: Release) -> NginxRefused | None:
        return await check(self._nginx, self._state, f"{release.path}/nginx.conf", stdout=self._options.stdout)

    async def _go_live(self, release: Release, *, is_tested: bool) -> NginxRefused | None:
        """Make a release current and nginx load it; undone when nginx does not."""
        live, self._live = self._live, None
        before = live or await asyncio.to_thread(releases.current, self._state)
        was_started, old_workers = self._supervisor.is_started, _children(self._supervisor.pid)
        releases.switch(self._state, release)
        if not was_started:
            self._supervisor.start()
        elif not self._supervisor.send(signal.SIGHUP):
            self._supervisor.wake()
        refused: NginxRefused | None = None
        self._generations.retire(old_workers, now=asyncio.get_running_loop().time())
        try:
            refused = await self._confirm(release, old_workers=old_workers, is_tested=is_tested)
        except NginxNotRunning:
            refused = None if is_tested else await self._test(release)
            if refused is None:
                if not was_started:
                    await self._supervisor.stop()
                raise
        if refused is not None:
            releases.switch(self._state, before)
            self._live = live
            if not was_started:
                await self._supervisor.stop()
        return refused

    async def _confirm(
        self, release: Release, *, old_workers: frozenset[int] = frozenset(), is_tested: bool = True
    ) -> NginxRefused | None:
        """Wait until a worker answers with the version of a release, or nginx says why none will.

        With more than one worker the old ones get every connection of an idle nginx until they are retired (they wait
        first in line, EPOLLEXCLUSIVE), which the master does 100 ms after it forked the new ones. They are told here
        as soon as new ones exist: a whole apply takes 44 ms instead of 149. Nothing is lost by it, since connections
        wait in listening sockets that all workers share, and a worker that the master did not want to end is started
        again by it.

        An `[emerg]` of the master ends the wait: at once where a test refuses the release, else a moment later, since
        some are not fatal: a worker that answers counts for more.

        An old worker that has been told may still take a connection before it gets to run, and would serve it by the
        release before. So the wait goes on until its title says that it is shutting down.
        """
        self._heard.clear()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.confirm
        ends, pause = self._supervisor.ends, _FIRST_POLL
        refused: NginxRefused | None = None
        retired: frozenset[int] = frozenset()
        is_answered = False
        while loop.time() < deadline and self._supervisor.ends < ends + 3:
            workers = _children(self._supervisor.pid)
            if old_workers and workers - old_workers:
                retired, old_workers = workers & old_workers, frozenset()
                _retire(retired)
            is_answered = is_answered or await client.version(self._state) == release.version
            if is_answered and not any(map(_accepts, old_workers | retired)):
                return None
            if refused is None and (refused := self._refusal()) is not None:
                if not is_tested and (tested := await self._test(release)) is not None:
                    return tested
                deadline = min(deadline, loop.time() + 0.3)
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, _LAST_POLL)
        if is_answered:
            return None
        if refused is None:
            said = f"; it said last: {self._supervisor.last_line}" if self._supervisor.last_line else ""
            raise NginxNotRunning(f"no nginx worker answered for version {release.version} in time{said}")
        return refused

    def _refusal(self) -> NginxRefused | None:
        """Why the master does not load what it was told to; None while it may yet.

        nginx tries to bind a port that is in use five times, 0.5 s apart, before it gives up.
        """
        emergencies = [line for line in map(parse, self._heard) if line.level == "emerg"]
        has_given_up = any("failed (98: " not in line.message for line in emergencies)
        return refusal(self._heard, self._state) if has_given_up else None

    def _hear(self, master: int | None, text: str) -> None:
        if parse(text).pid in (None, master):
            self._heard.append(text)


def _program(nginx: Nginx, state: State, options: Options) -> Program:
    return Program(
        name="nginx",
        command=nginx.command(state, _CURRENT),
        directory=state.root,
        # QUIT lets workers finish what they do, TERM does not.
        stops=((signal.SIGQUIT, options.drain), (signal.SIGTERM, 2.0)),
        leash=signal.SIGTERM,  # the master takes its workers along
        orphans=signal.SIGQUIT,  # workers that outlive their master give up its ports and end their streams in peace
        prepare=lambda: _remove_sockets(state),
        level=_level,
        stdout=options.stdout,
    )


def _level(line: str) -> int | None:
    """Level of a line of nginx for the log; None for one that goes on, as a position in JavaScript does."""
    if line[:1].isspace():
        return None
    if _HARMLESS.search(line):
        return logging.DEBUG
    return _LEVELS.get(parse(line).level, logging.INFO)


def _remove_sockets(state: State) -> None:
    """Sockets that an nginx left behind: it cannot bind where one is, and leaves them when it stops gracefully."""
    others = {(state.root / PICKER_SOCKET).name, (state.root / RELAY_SOCKET).name}
    for path in state.run.iterdir():
        if path.is_socket() and path.name not in others:
            path.unlink()


def _children(pid: int | None) -> frozenset[int]:
    """Processes that a process started; empty where the kernel does not tell."""
    try:
        return frozenset(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return frozenset()


def _accepts(worker: int) -> bool:
    """Whether a worker takes connections: nginx says in its title that it does not before it closes its listeners."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
    return bool(title) and b"shutting down" not in title


def _retire(workers: frozenset[int]) -> None:
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGQUIT)
