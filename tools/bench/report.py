"""What a benchmark hands back, how it is shown, and how it is written."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from controller import compiled
from controller.agent.nginx import Nginx

_CPU_INFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Bar:
    """A figure that is not to exceed a limit."""

    what: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading of each column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found."""

    figures: dict[str, object]
    """Written as JSON as they are; dataclasses become objects."""
    tables: tuple[Table, ...]
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran."""

    processors: int
    """That this process may use."""
    processor: str
    load_average: float
    """Over the minute before the benchmark: what others do on the machine shows in it."""
    python: str
    nginx: str
    compiled: str
    """How many modules of the hot paths a process finds compiled, of all of them."""


def machine(nginx: Nginx) -> Machine:
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        processor=_processor_name(),
        load_average=os.getloadavg()[0],
        python=platform.python_version(),
        nginx=".".join(map(str, nginx.version)),
        compiled=compiled.available(os.environ),
    )


def show(outcome: Outcome) -> str:
    """Tables, and after them one line for each bar."""
    parts = [show_table(table) for table in outcome.tables]
    if outcome.bars:
        rows = [
            (bar.what, _number(bar.value), f"{_number(bar.limit)} {bar.unit}".rstrip(), verdict(bar))
            for bar in outcome.bars
        ]
        parts.append(show_table(Table("Bars", ("what", "found", "at most", ""), tuple(rows))))
    return "\n\n".join(parts)


def verdict(bar: Bar) -> str:
    return "within" if bar.is_met else "over the bar"


def show_table(table: Table) -> str:
    """The first column to the left, the others to the right."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    shown = [_line(line, widths) for line in lines]
    return "\n".join([table.title, shown[0], _line(["-" * width for width in widths], widths), *shown[1:]])


def write(outcome: Outcome, *, name: str, directory: Path, quick: bool, machine: Machine) -> Path:
    """Writes NAME.json into a directory, which is made when missing."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine,
        "bars": [
            {"what": bar.what, "value": bar.value, "limit": bar.limit, "unit": bar.unit, "is_met": bar.is_met}
            for bar in outcome.bars
        ],
        **outcome.figures,
    }
    path = directory / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return path


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]).rstrip()


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _processor_name() -> str:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")
