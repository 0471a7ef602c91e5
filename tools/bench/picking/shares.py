"""What the processors did during a run. Pods that work in real time are only as right as the processors are free."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from tools.bench.failures import CannotMeasure
from tools.bench.processes import cpu_seconds

_STAT: Final = Path("/proc/stat")
_FULL: Final = 0.75
"""Share of one processor above which a process with one thread is often late."""
_LATE: Final = 0.01
"""Seconds, once in a hundred times; more would show in the first-token times of the best policies, 0.08 to 0.15 s. How
busy the processors are does not tell: with both of them full of other work, what runs rarely was 4 to 8 ms late."""


class Part(StrEnum):
    """Processes whose share is told apart."""

    PODS = "pods"
    NGINX = "nginx"
    PICKER = "picker"
    LOAD = "load"


class Shares(msgspec.Struct, frozen=True):
    """Processors that were busy: 1 is one of them, all the time."""

    parts: dict[Part, float]
    others: float
    """Whatever else runs on the machine, the controller and the kernel among them."""
    busy: float
    """Share of all processors, in [0, 1]."""


class Lateness(msgspec.Struct, frozen=True):
    """99th percentiles of the seconds by which event loops were late."""

    pods: float
    load: float


@dataclass(frozen=True)
class Moment:
    """What had been used until then, in seconds."""

    at: float
    used: Mapping[Part, float]
    busy: float
    """Of all processors together."""


def moment(pids: Mapping[Part, Sequence[int]]) -> Moment:
    """Raises CannotMeasure when one of the processes has ended."""
    try:
        used = {part: sum(map(cpu_seconds, each)) for part, each in pids.items()}
    except FileNotFoundError as problem:
        raise CannotMeasure(f"a process ended during the run: {problem.filename}") from problem
    return Moment(at=perf_counter(), used=used, busy=parse_busy(_STAT.read_text()) / os.sysconf("SC_CLK_TCK"))


def between(first: Moment, last: Moment, *, processors: int) -> Shares:
    """What was used from one moment to a later one."""
    seconds = last.at - first.at
    parts = {part: (last.used[part] - first.used[part]) / seconds for part in Part}
    busy = (last.busy - first.busy) / seconds
    return Shares(parts=parts, others=max(0.0, busy - sum(parts.values())), busy=busy / processors)


def parse_busy(text: str) -> int:
    """Ticks that all processors together were not idle, from the text of /proc/stat. Source: proc_stat(5)."""
    user, nice, system, _idle, _waiting, *others = map(int, text.split("\n", 1)[0].split()[1:])
    # Of the others, guests count as user time already. Time that the host took away is none that a process had.
    return user + nice + system + sum(others[:3])


def strain(shares: Shares, lateness: Lateness) -> tuple[str, ...]:
    """What says that the machine was too busy for the figures to mean anything; nothing when it was not."""
    found = [f"{part} {share:.0%} of a processor" for part, share in shares.parts.items() if share > _FULL]
    for name, late in (("pods", lateness.pods), ("load generator", lateness.load)):
        if late > _LATE:
            found.append(f"{name} {late * 1000:.0f} ms late")
    return tuple(found)
