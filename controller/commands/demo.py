"""`infergate demo`: a gateway on this machine with model servers behind it, and four scenes to try."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from controller.agent import client as agent_client
from controller.agent.state import PICKER_SOCKET
from controller.agent.state import State as StateDirectory
from controller.commands.run import Gateway
from controller.dataplane.local import default_state
from controller.demo import files
from controller.demo.client import Client
from controller.demo.guide import guide
from controller.demo.judge import table
from controller.demo.ports import HOST, require_free, reserved
from controller.demo.scenes import Stage, play
from controller.demo.servers import CPU_PODS, ModelServer, model_file, model_servers
from controller.errors import InfergateError
from controller.reconcile import State
from controller.settings import settings, usable_processors

_DIRECTORY: Final = Path("demo")
_PORT: Final = 8080
_ACCESS_LOG: Final = "access.log"
_MOST_THREADS: Final = 4
"""Of a llama.cpp server; more do not help a model this small."""
_READ_SECONDS: Final = 15.0
"""Model servers are read once a second."""


class DemoFailed(InfergateError):
    """The demo cannot be run as it was asked for, or its gateway does not serve."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--directory", type=Path, metavar="DIR", help=f"directory for the YAML (default: {_DIRECTORY})")
    parser.add_argument("--port", type=_port, metavar="PORT", help=f"port of the gateway (default: {_PORT})")
    parser.add_argument("--fresh", action="store_true", help="write all YAML again, edited or not")
    parser.add_argument("--simulate", action="store_true", help="simulated servers in place of llama.cpp")
    parser.add_argument(
        "--check",
        action="store_true",
        help="play the scenes in a temporary directory and judge them: exit 0 if all hold, else 1",
    )


def run(arguments: argparse.Namespace) -> int:
    """0 after Ctrl-C; with `--check` 0 only if every scene holds, 130 after Ctrl-C."""
    if arguments.check and (arguments.directory or arguments.port or arguments.fresh):
        raise DemoFailed("--check has a directory and a port of its own: leave out --directory, --port and --fresh")
    if not arguments.simulate:
        model_file()
    return _checked(arguments) if arguments.check else _shown(arguments)


def _port(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= 65535:
        raise argparse.ArgumentTypeError(f"{word} is not a number between 1 and 65535")
    return int(word)


def _shown(arguments: argparse.Namespace) -> int:
    directory = arguments.directory or _DIRECTORY
    port = _PORT if arguments.port is None else arguments.port
    demo = _Demo(directory, default_state(directory), port=port, simulate=arguments.simulate)

    async def show(servers: tuple[ModelServer, ...]) -> int:
        _say(guide(port=port, directory=directory, access_log=demo.access_log))
        await asyncio.Event().wait()
        return 0

    with files.held(directory):
        require_free(port)
        return asyncio.run(_until_signal(demo.run(show, fresh=arguments.fresh), when_ended=0))


def _checked(arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="infergate-demo-")))
        (port,) = stack.enter_context(reserved(1))
        lines = stack.enter_context(_heard())
        directory = root / "demo"
        directory.mkdir()
        demo = _Demo(directory, root / "state", port=port, simulate=arguments.simulate)

        async def check(servers: tuple[ModelServer, ...]) -> int:
            await demo.until_read(len(servers))
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=demo.url, timeout=30.0, limits=limits, trust_env=False) as http:
                client = Client(http, clock=asyncio.get_running_loop().time)
                stage = Stage(client, servers, directory=directory, access_log=demo.access_log, log_lines=lines)
                verdicts = await play(stage, say=_say)
            _say("\n" + table(verdicts))
            return int(not all(verdict.holds for verdict in verdicts))

        return asyncio.run(_until_signal(demo.run(check), when_ended=130))


@dataclass(frozen=True)
class _Demo:
    directory: Path
    state: Path
    port: int
    simulate: bool

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def access_log(self) -> Path:
        return self.state / _ACCESS_LOG

    async def run(self, act: Callable[[tuple[ModelServer, ...]], Awaitable[int]], *, fresh: bool = False) -> int:
        """Everything runs while `act` does. Raises what the gateway and the model servers raise, and DemoFailed."""
        threads = min(max(1, usable_processors() // CPU_PODS), _MOST_THREADS)
        first: asyncio.Future[State] = asyncio.get_running_loop().create_future()

        def hear(state: State) -> None:
            if not first.done():
                first.set_result(state)

        async with (
            # The gateway is asked to end before the model servers, and waited for after them: it would go on for ten
            # seconds with a stream that nobody cuts.
            AsyncExitStack() as stack,
            model_servers(self.directory, simulate=self.simulate, threads=threads, say=_say) as servers,
        ):
            files.write(self.directory, servers, port=self.port, fresh=fresh)
            _say(f"starting the gateway on {self.url}")
            serving = asyncio.create_task(self._gateway().serve(hear))
            acting = asyncio.create_task(self._act(act, servers, first=first))
            stack.push_async_callback(asyncio.wait, {serving, acting})
            try:
                await asyncio.wait({serving, acting}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
                return await acting
            finally:
                acting.cancel()
                serving.cancel()

    async def _act(
        self,
        act: Callable[[tuple[ModelServer, ...]], Awaitable[int]],
        servers: tuple[ModelServer, ...],
        *,
        first: asyncio.Future[State],
    ) -> int:
        state = await first
        if not state.serving:
            raise DemoFailed(f"the gateway does not serve: {state.problem or 'no version could be applied'}")
        return await act(servers)

    async def until_read(self, count: int) -> None:
        """Waits until the picker has read the metrics of all servers: before, it prefers those that it has read.

        Raises DemoFailed.
        """
        directory = StateDirectory(self.state.resolve())
        with suppress(TimeoutError):
            async with asyncio.timeout(_READ_SECONDS):
                while True:
                    answer = await agent_client.ask(directory, "/pools", socket=PICKER_SOCKET, timeout=1.0)
                    if answer.status == 200 and _read_in(answer.body) >= count:
                        return
                    await asyncio.sleep(0.05)
        raise DemoFailed(f"the picker did not read all model servers in {_READ_SECONDS:g} s")

    def _gateway(self) -> Gateway:
        chosen = settings({**os.environ, "INFERGATE_ACCESS_LOG": _ACCESS_LOG})
        return Gateway(self.directory, self.state, listen=(HOST,), settings=chosen)


def _read_in(body: bytes) -> int:
    pools = json.loads(body)["pools"]
    return sum(endpoint["metrics"] == "read" for pool in pools for endpoint in pool["endpoints"])


async def _until_signal(running: Awaitable[int], *, when_ended: int) -> int:
    """The result, or `when_ended` when SIGINT or SIGTERM ended it first. A second one ends what it still waits for."""
    task = asyncio.ensure_future(running)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return when_ended


@contextmanager
def _heard() -> Iterator[list[str]]:
    """The log as lines; the terminal gets warnings only."""
    root, lines = logging.getLogger(), _Lines()
    shown = [(handler, handler.level) for handler in root.handlers]
    for handler, _ in shown:
        handler.setLevel(max(handler.level, logging.WARNING))
    root.addHandler(lines)
    try:
        yield lines.lines
    finally:
        root.removeHandler(lines)
        for handler, level in shown:
            handler.setLevel(level)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        details = (f" {name}={record.__dict__[name]}" for name in ("files", "milliseconds") if name in record.__dict__)
        self.lines.append(record.getMessage() + "".join(details))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
