"""`infergate relay`: beside NGINX, speaks to external endpoint pickers."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from controller.garbage import collect_seldom
from controller.relay.config import RelaySettings
from controller.relay.run import run_until

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    fields = RelaySettings.model_fields
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket on which NGINX sends requests")
    parser.add_argument("--pools", type=Path, required=True, help="pools file, followed")
    parser.add_argument("--spill", type=Path, metavar="DIR", help="directory for bodies that do not stay in memory")
    for name, what in (
        ("connect_timeout", "to connect to a picker"),
        ("answer_timeout", "for what a picker owes; longer than a wait in its queue"),
        ("silence", "without a byte from a picker with requests, after which it is asked whether it lives"),
    ):
        default = fields[name].default
        text = f"{what} (default: {default:g})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default, metavar="SECONDS", help=text)
    parser.add_argument(
        "--memory",
        type=int,
        default=fields["memory"].default,
        metavar="BYTES",
        help="of bodies in memory; what is more goes to files (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0 after a signal, 1 when it cannot serve, 2 for wrong arguments."""
    try:
        settings = RelaySettings(
            **{name: value for name, value in vars(arguments).items() if name in RelaySettings.model_fields}
        )
    except ValidationError as error:
        for problem in error.errors():
            where = "".join(f"{part}: " for part in problem["loc"])
            sys.stderr.write(f"infergate relay: {where}{problem['msg']}\n")
        return 2
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_until_signal(settings))
    except OSError as error:
        log.error("relay cannot serve", extra={"reason": str(error)})
        return 1
    return 0


async def _run_until_signal(settings: RelaySettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    collect_seldom()
    await run_until(settings, stopping=stopping)
