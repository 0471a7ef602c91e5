"""`infergate dialer`: opens connections in TLS to backends that NGINX itself cannot know for sure.

NGINX compares a certificate with one hostname, the one that it also asks for. A policy may want other names, several of
them, or URIs. Such backends are behind Unix sockets of this process, which looks at every certificate itself.
"""

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path

import uvloop

from controller.dialer.follow import Sockets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backends", type=Path, required=True, metavar="FILE", help="what is dialed, followed")


def run(arguments: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(arguments.backends))
    return 0


async def _until_signal(backends: Path) -> None:
    following = asyncio.ensure_future(Sockets(backends).follow())
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, following.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await following
