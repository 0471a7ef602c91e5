"""`infergate picker`: the endpoint picker, beside NGINX or for gateways that speak ext_proc."""

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from controller import compiled
from controller.errors import SettingInvalid
from controller.garbage import collect_seldom
from controller.picker.config import PickerSettings
from controller.picker.options import add_ext_proc_arguments, ext_proc_settings, problem_of
from controller.picker.outlive import until_free
from controller.picker.server import serve

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--socket", type=Path, help="Unix socket on which NGINX asks")
    parser.add_argument("--pools", type=Path, help="pools file, followed")
    parser.add_argument("--completions", type=Path, help="file to which NGINX appends the ends of requests, followed")
    parser.add_argument("--metrics-address", metavar="HOST:PORT", help="also answer /metrics and its kin over TCP")
    parser.add_argument(
        "--scrape-interval", type=float, default=1.0, metavar="SECONDS", help="between two scrapes of a model server"
    )
    parser.add_argument(
        "--staleness", type=float, default=3.0, metavar="SECONDS", help="age at which a reading no longer counts"
    )
    parser.add_argument(
        "--outlive",
        type=Path,
        metavar="FILE",
        help="after a signal go on until nobody holds a lock on this file, the one of the state directory of NGINX",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="and no longer than this (default: %(default)g)",
    )
    parser.add_argument(
        "--replicas", action="store_true", help="other replicas of the gateway send to the same model servers"
    )

    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        default=os.environ.get("INFERGATE_PICKER_RECORD") or None,
        help="write a trace for --replay; prompts are in it as sizes and hashes",
    )
    parser.add_argument(
        "--record-limit", type=int, default=100_000_000, metavar="BYTES", help="at which the trace ends"
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE",
        help="serve nothing: choose anew for the requests of a trace, and compare",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="PickerPolicy or EndpointPickerConfig to replay with (default: the recorded one), "
        "or to serve a pool of a cluster with (default: what its PickerPolicy says)",
    )
    add_ext_proc_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0 after a signal, 1 when it cannot serve, 2 for wrong arguments.

    With `--replay`, print a table instead. Raises InputUnreadable and SettingInvalid then.
    """
    if arguments.replay is not None:
        # What the recorded picker warned of is no news.
        logging.getLogger("controller.picker").setLevel(logging.ERROR)
        # Imported here alone: a picker that serves has no use for YAML.
        from controller.picker.replay.command import replay

        sys.stdout.write(replay(arguments.replay, policy=arguments.policy))
        return 0
    try:
        if problem := problem_of(arguments):
            raise SettingInvalid(problem)
        settings = PickerSettings(
            ext_proc=ext_proc_settings(arguments),
            socket=arguments.socket,
            pools=arguments.pools,
            completions=arguments.completions,
            metrics_address=arguments.metrics_address,
            scrape_interval=arguments.scrape_interval,
            staleness=arguments.staleness,
            replicas=arguments.replicas,
            record=arguments.record,
            record_limit=arguments.record_limit,
            outlive=arguments.outlive,
            grace=arguments.grace,
        )
    except ValidationError as error:
        for flaw in error.errors():
            where = "".join(f"{part}: " for part in flaw["loc"])
            sys.stderr.write(f"infergate picker: {where}{flaw['msg']}\n")
        return 2
    except SettingInvalid as error:
        sys.stderr.write(f"infergate picker: {error}\n")
        return 2
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_until_signal(settings))
    except OSError as error:
        log.error("picker cannot serve", extra={"reason": str(error)})
        return 1
    return 0


async def _serve_until_signal(settings: PickerSettings) -> None:
    asked, stopping = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    collect_seldom()
    ending = asyncio.create_task(_end(settings, asked=asked, stopping=stopping))
    try:
        if settings.ext_proc is None:
            compiled.tell(log, "picker starts")
            await serve(settings, rng=random.Random(), stopping=stopping)
        else:
            # Imported here alone: a picker beside NGINX has no use for gRPC, nor for an API server.
            from controller.picker.ext_proc.serving import serve_gateways

            compiled.tell(log, "picker starts")
            await serve_gateways(settings, rng=random.Random(), stopping=stopping)
    finally:
        ending.cancel()


async def _end(settings: PickerSettings, *, asked: asyncio.Event, stopping: asyncio.Event) -> None:
    """Passes on that the process was asked to end, once NGINX needs it no more."""
    await asked.wait()
    if settings.outlive is not None:
        log.info("picker ends after NGINX", extra={"grace": settings.grace})
        await until_free(settings.outlive, timeout=settings.grace)
    stopping.set()
