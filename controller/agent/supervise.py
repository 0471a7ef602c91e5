"""A child process that is kept running.

It is started again when it ends, later each time while it does not last. What it prints goes to the log. It runs in a
session of its own, so that a Ctrl-C in the terminal reaches this program alone, and on a leash, so that it ends with
this program however that ends.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_LEASH: Final = Path(__file__).with_name("leash.py")
_LONGEST_LINE: Final = 16384
"""Bytes; the rest of a longer line is a line of its own."""


@dataclass(frozen=True)
class Check:
    """How a child that hangs is told from one that works."""

    is_well: Callable[[], Awaitable[bool]]
    """Answers within a time of its own."""
    interval: float = 1.0
    """Seconds between two questions."""
    misses: int = 3
    """This many failures in a row and the child is killed."""
    startup: float = 30.0
    """Seconds that the first success may take."""


@dataclass(frozen=True)
class Backoff:
    """Seconds before a child that ended is started again, doubled each time."""

    first: float = 0.1
    limit: float = 10.0
    lasting: float = 30.0
    """A child that ran for this long starts the row anew."""


@dataclass(frozen=True)
class Program:
    """What runs, and how it is stopped."""

    name: str
    """Also the name of the logger that its lines go to."""
    command: tuple[str, ...]
    directory: Path
    """Its working directory."""
    stops: tuple[tuple[signal.Signals, float], ...]
    """Signals that ask it to end, each with the seconds before the next; SIGKILL comes last."""
    leash: signal.Signals
    """Sent by the kernel when this program is gone."""
    orphans: signal.Signals
    """Sent to the children that it leaves when it ends by itself."""
    prepare: Callable[[], None]
    """Called before every start."""
    level: Callable[[str], int | None]
    """Level of a line in the terms of `logging`; None is that of the line before."""
    stdout: int | None = None
    """Descriptor for its standard output; None sends that to the log as well."""
    check: Check | None = None


class Supervisor:
    """Keeps one program running between `start` and `stop`."""

    def __init__(
        self, program: Program, *, backoff: Backoff = Backoff(), hear: Callable[[int | None, str], None] | None = None
    ) -> None:
        """`hear` is told every line that the program prints, after the pid of the program."""
        self._program = program
        self._backoff = backoff
        self._hear = hear
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._groups: set[int] = set()
        self._pipes: set[_Lines] = set()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._was_well = False
        self.ends = 0
        """How often the program ended by itself."""
        self.last_line = ""
        """What it printed last."""

    @property
    def pid(self) -> int | None:
        """None while the program does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def is_started(self) -> bool:
        """Whether the program runs, or will when its time comes."""
        return self._keeper is not None

    def start(self) -> None:
        """Run the program from here on. Does not wait until it does."""
        self._is_stopping = False
        self._wake.clear()
        self._keeper = asyncio.create_task(self._keep(), name=f"supervise {self._program.name}")

    def wake(self) -> None:
        """Start it at once if it waits to be started again."""
        self._wake.set()

    def vouch(self) -> None:
        """Say that the program was seen to be well, so that its `startup` is over."""
        self._was_well = True

    def send(self, sign: signal.Signals) -> bool:
        """Send a signal to the program; false when it does not run."""
        if self._process is None:
            return False
        try:
            self._process.send_signal(sign)
        except ProcessLookupError:
            return False
        return True

    async def stop(self) -> None:
        """End the program and everything that it started. Waits as long as the program's `stops` say."""
        keeper = self._keeper
        if keeper is None:
            return
        self._is_stopping = True
        self._wake.set()
        try:
            for sign, patience in self._program.stops:
                if not self.send(sign):
                    break
                done, _ = await asyncio.wait({keeper}, timeout=patience)
                if done:
                    break
        finally:
            for leader in tuple(self._groups):
                self._signal_group(leader, signal.SIGKILL)
            # SIGKILL leaves nothing to wait for but the kernel.
            await asyncio.wait({keeper, *(pipe.closed for pipe in self._pipes)}, timeout=5.0)
            for pipe in tuple(self._pipes):
                pipe.close()
            self._keeper = None
        if keeper.done():
            keeper.result()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = self._backoff.first
        while not self._is_stopping:
            started = loop.time()
            try:
                status: int | str = await self._run()
            except OSError as error:  # no memory, no descriptors, a directory that is gone
                status = str(error)
            if self._is_stopping:
                return
            self.ends += 1
            if loop.time() - started >= self._backoff.lasting:
                delay = self._backoff.first
            log.warning(
                "child ended and is started again",
                extra={"child": self._program.name, "status": status, "delay": delay},
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)
            if not self._is_stopping:
                self._wake.clear()
            delay = min(delay * 2, self._backoff.limit)

    async def _run(self) -> int:
        """One life of the program; its exit status, negative for a signal."""
        program = self._program
        program.prepare()
        lines, pipe = await self._listen()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(int(program.leash))),
                *program.command,
                cwd=program.directory,
                stdin=subprocess.DEVNULL,
                stdout=pipe if program.stdout is None else program.stdout,
                stderr=pipe,
                start_new_session=True,
            )
        finally:
            os.close(pipe)
        self._process = process
        lines.pid = process.pid
        self._groups.add(process.pid)
        # All of the group is gone when nobody holds its pipe, and its id can become that of a stranger.
        lines.closed.add_done_callback(lambda _: self._groups.discard(process.pid))
        if self._is_stopping:
            process.kill()
        check = asyncio.create_task(self._watch(program.check, process.pid)) if program.check else None
        try:
            return await process.wait()
        finally:
            self._process = None
            if check is not None:
                check.cancel()
            self._signal_group(process.pid, program.orphans)
            # Its last words. An orphan that drains keeps the pipe open and goes on talking to it.
            await asyncio.wait({lines.closed}, timeout=0.2)

    async def _listen(self) -> tuple["_Lines", int]:
        """A reader of lines, and the descriptor to write them to."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        _, lines = await asyncio.get_running_loop().connect_read_pipe(
            lambda: _Lines(self._relay), os.fdopen(reading, "rb", buffering=0)
        )
        self._pipes.add(lines)
        lines.closed.add_done_callback(lambda _: self._pipes.discard(lines))
        return lines, writing

    def _relay(self, pid: int | None, line: str, level_before: int) -> int:
        level = self._program.level(line)
        level = level_before if level is None else level
        self.last_line = line
        if self._hear is not None:
            self._hear(pid, line)
        said = line.removeprefix(f"{logging.getLevelName(level)} ")  # the level is shown once
        logging.getLogger(self._program.name).log(level, "%s", said)
        return level

    async def _watch(self, check: Check, pid: int) -> None:
        loop = asyncio.get_running_loop()
        patience = loop.time() + check.startup
        self._was_well, misses = False, 0
        while misses < check.misses:
            asked = loop.time()
            if await check.is_well():
                self._was_well, misses = True, 0
            elif self._was_well or loop.time() > patience:
                misses += 1
            await asyncio.sleep(max(asked + check.interval - loop.time(), 0))
        log.error("child does not answer and is killed", extra={"child": self._program.name, "misses": misses})
        self._signal_group(pid, signal.SIGKILL)

    def _signal_group(self, leader: int, sign: signal.Signals) -> None:
        """Signal a child and all that it started; their group outlives its leader."""
        with suppress(ProcessLookupError):
            os.killpg(leader, sign)


class _Lines(asyncio.Protocol):
    """Cuts what comes through a pipe into lines."""

    def __init__(self, relay: Callable[[int | None, str, int], int]) -> None:
        self._relay = relay
        self.pid: int | None = None
        self._rest = b""
        self._level = logging.INFO
        self._transport: asyncio.BaseTransport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._say(line)

    def connection_lost(self, error: Exception | None) -> None:
        if self._rest:
            self._say(self._rest)
        if not self.closed.done():
            self.closed.set_result(None)

    def _say(self, line: bytes) -> None:
        self._level = self._relay(self.pid, line.decode(errors="replace"), self._level)
