"""`infergate simulate`: simulated model servers on consecutive ports until Ctrl-C."""

import argparse
import asyncio
import logging
import signal
from typing import Any

import uvloop
from pydantic import ValidationError

from controller.simulator.pods import PortUnavailable, serve
from controller.simulator.settings import PodSettings

log = logging.getLogger(__name__)

_OPTIONS = tuple(name for name, field in PodSettings.model_fields.items() if field.description)
"""Settings that are options of the same name and for which the command has no words of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per setting of a pod, and those that say how many there are and where."""
    parser.add_argument("--pods", type=_at_least_one, default=1, metavar="N", help="how many")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on")
    parser.add_argument("--port", type=int, default=9001, metavar="PORT", help="port of the first; others follow")
    parser.add_argument("--name-prefix", default="pod", metavar="TEXT", help="pods are called TEXT-0, TEXT-1, ...")
    parser.add_argument("--model", default="simulated", metavar="NAME", help="model they serve")
    parser.add_argument("--lora", action="append", default=[], metavar="NAME", help="adapter they serve; repeatable")
    for name in _OPTIONS:
        field = PodSettings.model_fields[name]
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", help=field.description)
        else:
            kind: Any = field.annotation  # argparse takes any callable; here it is int or float
            parser.add_argument(
                flag, type=kind, default=field.default, metavar="N" if kind is int else "X", help=field.description
            )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code: 0, 1 when a port is taken, 2 for wrong settings."""
    try:
        pods = settings_of(arguments)
    except ValidationError as error:
        for problem in error.errors():
            log.error("wrong setting", extra={"setting": ".".join(map(str, problem["loc"])), "problem": problem["msg"]})
        return 2
    try:
        uvloop.run(_serve_until_signal(pods, host=arguments.host))
    except PortUnavailable as error:
        log.error("pods did not start", extra={"problem": str(error)})
        return 1
    return 0


def settings_of(arguments: argparse.Namespace) -> tuple[PodSettings, ...]:
    """One per pod. Raises pydantic's ValidationError."""
    shared = {name: getattr(arguments, name) for name in _OPTIONS}
    return tuple(
        PodSettings(
            name=f"{arguments.name_prefix}-{index}",
            port=arguments.port + index if arguments.port else 0,
            model=arguments.model,
            adapters=tuple(arguments.lora),
            **shared,
        )
        for index in range(arguments.pods)
    )


def _at_least_one(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is not a number of at least 1")
    return int(word)


async def _serve_until_signal(pods: tuple[PodSettings, ...], *, host: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with await serve(pods, host=host) as simulation:
        for name, address in simulation.addresses.items():
            log.info("pod ready", extra={"pod": name, "address": address})
        await stopped.wait()
