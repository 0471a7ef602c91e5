"""`infergate check`: statuses and conditions of every resource in a directory."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from controller import logs
from controller.agent import nginx
from controller.commands import statuses
from controller.dataplane.trial import TrialDataPlane
from controller.errors import NginxMissing
from controller.plugins.installed import installed
from controller.provider.file import read
from controller.reconcile import Reconciler, State
from controller.render.files import RenderSettings
from controller.resources.snapshot import Snapshot
from controller.settings import settings, system_authorities
from controller.status.types import Row, Severity

_WORDS = {
    Severity.ERROR: "ERROR",
    Severity.WARNING: "WARNING",
    Severity.PENDING: "PENDING",
    Severity.FINE: "ok",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory (or file) with the resources")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "yaml", "json"),
        default="table",
        help="table: findings, worst first; yaml, json: the resources with their status (default: %(default)s)",
    )
    parser.add_argument("--no-test", action="store_true", help="do not ask nginx whether it takes what is rendered")


def run(arguments: argparse.Namespace) -> int:
    """0 when all is well, 1 when something is not; InputUnreadable ends with 2."""
    with logs.silence():
        state = asyncio.run(_judged(read(arguments.directory), None if arguments.no_test else _nginx()))
    writers: dict[str, Callable[[State], str]] = {
        "table": lambda state: table(statuses.rows(state)),
        "yaml": statuses.as_yaml,
        "json": lambda state: json.dumps(statuses.documents(state), indent=2) + "\n",
    }
    sys.stdout.write(writers[arguments.output](state))
    return int(any(row.severity > Severity.PENDING for row in statuses.rows(state)))


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned columns, with a final newline; a long message goes on as it is."""
    cells = [
        (_WORDS[row.severity], " ".join(part for part in (row.kind, row.name, row.place) if part), row.condition)
        for row in rows
    ]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in range(3)]
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(cell, widths, strict=True)), row.message]).rstrip()
        for cell, row in zip(cells, rows, strict=True)
    ]
    return "".join(f"{line}\n" for line in lines)


async def _judged(snapshot: Snapshot, binary: nginx.Nginx | None) -> State:
    states: list[State] = []
    async with TrialDataPlane(binary) as data_plane:
        await Reconciler(
            data_plane,
            RenderSettings(),
            catalogue=installed(),
            system_authorities=system_authorities(),
            on_state=states.append,
        ).turn(snapshot, None)
    return states[-1]


def _nginx() -> nginx.Nginx | None:
    try:
        return nginx.find(settings().nginx, environment=os.environ)
    except NginxMissing:
        return None
