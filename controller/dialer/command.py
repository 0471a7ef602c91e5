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
from controller.dialer.health import answering_health


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backends", type=Path, required=True, metavar="FILE", help="what is dialed, followed")
    parser.add_argument("--pools", type=Path, required=True, metavar="FILE", help="endpoints of pools, followed")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket that answers /healthz")


def run(arguments: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(arguments))
    return 0


async def _until_signal(arguments: argparse.Namespace) -> None:
    sockets = Sockets(arguments.backends, pools=arguments.pools)
    following = asyncio.ensure_future(sockets.follow())
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, following.cancel)
    async with answering_health(arguments.socket):
        with contextlib.suppress(asyncio.CancelledError):
            await following
