"""The command line. Each command is a module with `add_arguments` and `run`, imported only when it is called."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from io import TextIOWrapper
from typing import Final

from controller import compiled, logs
from controller.errors import InfergateError

_COMMANDS: Final = {
    "run": ("controller.commands.run", "the whole gateway on this machine, from a directory of YAML"),
    "check": ("controller.commands.check", "statuses and conditions of every resource in a directory"),
    "render": ("controller.commands.render", "the files of each Gateway as they would be applied"),
    "demo": ("controller.commands.demo", "a gateway with model servers to try out"),
    "simulate": ("controller.simulator.command", "simulated model servers"),
    "controller": ("controller.commands.controller", "the control plane in a cluster"),
    "agent": ("controller.commands.agent", "keeps nginx in a pod at what the control plane says"),
    "dialer": ("controller.dialer.command", "opens connections to backends that nginx cannot know by itself"),
    "picker": ("controller.picker.command", "the endpoint picker beside nginx"),
    "relay": ("controller.relay.command", "beside nginx, speaks to external endpoint pickers"),
}
_LOG_FORMATS: Final = ("text", "json", "bare")
_HOT: Final = "picker"
"""The command that imports compiled modules where there are any."""


_INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status of a program that Ctrl-C ended, as shells have it."""
_UNREAD: Final = 128 + signal.SIGPIPE
"""Exit status of a program whose output nobody reads to its end, as of `| head`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text in the user's encoding
    try:
        try:
            return _run(arguments)
        finally:
            print(end="", flush=True)
    except KeyboardInterrupt:
        # The command imports, or is one that just computes: what serves takes signals itself.
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written when Python ends
        return _UNREAD


def _run(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="infergate", description="An inference gateway on NGINX.")
    parser.add_argument("--version", action="version", version=f"infergate {metadata.version('infergate')}")
    chosen = os.environ.get("INFERGATE_LOG_FORMAT", "text")
    if chosen not in _LOG_FORMATS:  # argparse does not compare a default with the choices
        parser.error(f"INFERGATE_LOG_FORMAT={chosen}: accepted are {', '.join(_LOG_FORMATS)}")
    parser.add_argument(
        "--log-format",
        choices=_LOG_FORMATS,
        default=chosen,
        help="how log lines are written (default: %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in given:
            if name == _HOT:
                compiled.install(os.environ)
            importlib.import_module(module).add_arguments(command)
    parsed = parser.parse_args(given)
    logs.configure(parsed.log_format)
    try:
        status: int = importlib.import_module(_COMMANDS[parsed.command][0]).run(parsed)
    except InfergateError as problem:
        print(f"infergate: {problem}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
