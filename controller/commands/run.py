"""`infergate run`: the whole gateway on this machine, from a directory of YAML."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from controller.agent import nginx
from controller.agent.apply import Options
from controller.agent.state import PICKER_SOCKET
from controller.commands import statuses
from controller.commands.outside import outside
from controller.completions import COMPLETIONS_FILE
from controller.dataplane.local import LocalDataPlane, default_state
from controller.errors import SettingInvalid
from controller.garbage import collect_seldom
from controller.ir.streams import Opening, Transport
from controller.plugins.installed import installed
from controller.pools import POOLS_FILE
from controller.provider.file import FileProvider
from controller.reconcile import Reconciler, State
from controller.render.files import RenderSettings
from controller.settings import (
    Settings,
    fitting_large_requests,
    settings,
    system_authorities,
    usable_files,
    usable_processors,
)
from controller.status.types import Row, Severity

log = logging.getLogger(__name__)

_IN_STATE = "access.log"
"""Access log in the state directory, where nginx cannot open standard output."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory (or file) with the resources")
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="address on which listeners' ports are opened; may be given more than once (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="directory for releases and sockets (default: one below ~/.local/state)",
    )
    parser.add_argument(
        "--write-status", type=Path, metavar="FILE", help="keep the status of every resource in this file, as YAML"
    )


def run(arguments: argparse.Namespace) -> int:
    # A turn makes thousands of values without cycles. By default the collector walks all of them several times a turn,
    # which doubles the slowest turns at 1,000 routes.
    gc.set_threshold(50_000, 20, 50)
    gateway = Gateway(
        directory=arguments.directory,
        state=_state(arguments.state, arguments.directory),
        listen=tuple(arguments.listen or ("127.0.0.1",)),
        settings=settings(),
        status_file=_status_file(arguments.write_status, arguments.directory),
    )
    collect_seldom()
    return asyncio.run(_until_signal(gateway))


@dataclass(frozen=True)
class Gateway:
    """A gateway on this machine."""

    directory: Path
    state: Path
    listen: tuple[str, ...]
    """IP addresses."""
    settings: Settings
    status_file: Path | None = None

    async def serve(self, on_state: Callable[[State], None] = lambda state: None) -> None:
        """Runs until it is cancelled. `on_state` hears of every version.

        Raises NginxMissing, StateUnusable, InputUnreadable, and what the data plane raises when it cannot go on.
        """
        binary = nginx.find(self.settings.nginx, environment=os.environ)
        access_log, stdout = _access_log(self.settings.access_log)
        data_plane = LocalDataPlane(self.state, binary, picker_command(), options=Options(stdout=stdout))
        news = _News()
        status_file = _StatusFile(self.status_file) if self.status_file is not None else None

        def hear(state: State) -> None:
            news.tell(state)
            if status_file is not None:
                status_file.write(state)
            on_state(state)

        async with data_plane:
            log.info("state is kept", extra={"directory": str(self.state.absolute())})
            rendering = replace(render_settings(self.settings, listen=self.listen), access_log=access_log)
            can_open = partial(_can_open, rendering.listen_addresses)
            reconciler = Reconciler(
                data_plane,
                rendering,
                catalogue=installed(),
                system_authorities=system_authorities(),
                on_state=hear,
                can_open=can_open,
            )
            await reconciler.run(FileProvider(self.directory).snapshots())


@dataclass
class _News:
    """Logs what is different since the last state: findings, and where listeners answer."""

    _findings: set[Row] = field(default_factory=set)
    _places: set[str] = field(default_factory=set)

    def tell(self, state: State) -> None:
        findings = {row for row in statuses.rows(state) if row.severity > Severity.PENDING}
        for row in sorted(findings - self._findings, key=lambda row: row.text):
            log.log(logging.ERROR if row.severity is Severity.ERROR else logging.WARNING, row.text)
        for row in sorted(self._findings - findings, key=lambda row: row.text):
            log.info("no longer: %s", row.text)
        places = _listening(state)
        for place in sorted(places - self._places):
            log.info("listening", extra={"url": place})
        self._findings, self._places = findings, places


@dataclass
class _StatusFile:
    """The statuses of all resources, for others to read. Requests do not depend on it."""

    path: Path
    _has_failed: bool = False

    def write(self, state: State) -> None:
        staged = self.path.with_name(self.path.name + ".part")
        try:
            staged.write_text(statuses.as_yaml(state))
            staged.replace(self.path)
        except OSError as problem:
            if not self._has_failed:
                log.error("status cannot be written", extra={"path": str(self.path), "reason": problem.strerror})
            self._has_failed = True
            return
        self._has_failed = False


def _listening(state: State) -> set[str]:
    """URLs at which listeners answer."""
    hosts = [f"[{address}]" if ":" in address else address for address in state.addresses]
    return {
        f"{listener.protocol.lower()}://{host}:{listener.port}"
        for gateway in state.topology.gateways
        for listener in gateway.listeners
        if state.serving and listener.serves and listener.opening not in state.refusals.ports
        for host in hosts
    }


def render_settings(chosen: Settings, *, listen: tuple[str, ...]) -> RenderSettings:
    """What rendered files take from this machine.

    Raises SettingInvalid when an address is none.
    """
    return RenderSettings(
        listen_addresses=tuple(dict.fromkeys(_listen_address(address) for address in listen)),
        worker_processes=chosen.workers or usable_processors(),
        max_open_files=usable_files(),
        max_body_size=chosen.max_body_size,
        max_large_requests=chosen.max_large_requests or fitting_large_requests(),
        access_log=chosen.access_log,
    )


def picker_command() -> tuple[str, ...]:
    """The picker as a child process, run in the state directory."""
    options = ("--socket", PICKER_SOCKET, "--pools", POOLS_FILE, "--completions", COMPLETIONS_FILE)
    return (sys.executable, "-m", "controller", "--log-format", "bare", "picker", *options)


def _can_open(addresses: Iterable[str], opening: Opening) -> bool:
    """Whether this process could open a port, as nginx would."""
    is_tcp = opening.transport is Transport.TCP
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM) as tried:
                if is_tcp:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((address.strip("[]"), opening.port))
                if is_tcp:
                    tried.listen()
        except OSError:
            return False
    return True


def _access_log(wanted: str) -> tuple[str, int | None]:
    """The access log that nginx can open, and the descriptor that its `/dev/stdout` leads to."""
    if wanted != "/dev/stdout":
        return wanted, None
    stdout = nginx.openable(sys.stdout)
    return (wanted, stdout) if stdout is not None else (_IN_STATE, None)


def _status_file(path: Path | None, directory: Path) -> Path | None:
    """Raises SettingInvalid when the file would be read as one of the resources, or has no directory."""
    if path is None:
        return None
    if path.is_dir() or not path.parent.is_dir():
        raise SettingInvalid(f"--write-status {path}: not a file in a directory that exists")
    return outside(path, directory, option="--write-status")


def _state(path: Path | None, directory: Path) -> Path:
    """Raises SettingInvalid when its files would be read as resources."""
    return default_state(directory) if path is None else outside(path, directory, option="--state")


async def _until_signal(gateway: Gateway) -> int:
    serving = asyncio.ensure_future(gateway.serve())
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return 0


def _listen_address(address: str) -> str:
    try:
        parsed = ip_address(address.strip("[]"))
    except ValueError:
        raise SettingInvalid(f"--listen {address}: not an IP address") from None
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)
