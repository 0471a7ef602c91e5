"""What a pick costs the picker, beside what NGINX spends on a plain request of the same size.

Six and 64 endpoints, with a policy that switches everything on: flow control, objectives, explanations, usage. A long
prompt is also sent to a path without prompts, where its bytes are carried and nothing is read: what a prompt costs
beyond its transport. All ways take turns within each round. How long a pick takes the picker, once its request is
whole, is read from its own metrics, up to 1 MB; what it takes to read 100 endpoints, before there are requests. The
processor time of single picks is measured in this process.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from controller.agent.state import PICKER_SOCKET
from tools.bench.gateway import gateway
from tools.bench.load import Job, Load, load_generator
from tools.bench.pick_alone import Alone, measure
from tools.bench.pick_times import PickTimes, pick_times, within
from tools.bench.processes import Role, cpu_of, tree
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import CHAT_PATH, write_gateway, write_tuned_pool
from tools.bench.samples import Spread, spread
from tools.bench.servers import backend, free_ports, plain_proxy

_BARS: Final = {1_000: 1.6, 16_000: 1.6, 200_000: 1.3}
"""CPU of a pick among a few endpoints as a multiple of NGINX's for a plain request, by bytes of the body."""
_FEW: Final = 6
_MANY: Final = 64
_READ: Final = 100
"""Endpoints that are read while there are no requests."""
_IDLE_BAR: Final = 0.1
"""Cores that reading them takes."""
_MANY_BAR: Final = 1.6
"""Times a pick among a few."""
_LONG: Final = 120_000
"""Bytes of 30,000 tokens."""
_LARGE: Final = 1_000_000
"""Bytes of the largest body."""
_LONG_BAR: Final = 2.0
"""Times what its bytes cost in transport."""
_PATH_WITHOUT_PROMPTS: Final = "/v1/files"
_CONNECTIONS: Final = 32
_SETTLES_WITHIN: Final = 0.1
"""Seconds; NGINX and the picker look at what ended every 25 ms."""


class Way(StrEnum):
    """What is asked."""

    PLAIN = "plain"
    FEW = "few"
    MANY = "many"
    BYTES = "bytes"
    """A few endpoints, and a body whose prompt is not read."""


_JOBS: Final = (
    *((size, way) for size in _BARS for way in (Way.PLAIN, Way.FEW, Way.MANY)),
    (_LONG, Way.BYTES),
    (_LONG, Way.FEW),
    (_LARGE, Way.PLAIN),
    (_LARGE, Way.FEW),
)


@dataclass(frozen=True)
class Cell:
    """One size of body and way, over all rounds."""

    body_bytes: int
    way: Way
    requests: int
    failed: int
    median_us: Spread
    requests_per_second: Spread
    cpu_us: Spread
    """Microseconds per request: of the picker, and for a plain one of NGINX."""
    picked_within_us: float | None
    """Microseconds from the whole request to the answer, of 99 in 100 picks; None where there are none."""
    compared: Spread | None
    """As a multiple, in the same round: a few of plain, many of a few, a prompt of its bytes."""


@dataclass(frozen=True)
class _Target:
    port: int
    host: str
    pids: tuple[int, ...]
    access_log: Path
    path: str = CHAT_PATH
    picker: Path | None = None
    """Socket on which the picker tells how long picks took."""


@dataclass(frozen=True)
class _Measured:
    load: Load
    cpu: float
    """Seconds."""
    picks: PickTimes
    """By how long they took."""

    @property
    def per_request(self) -> float:
        return self.cpu / self.load.requests


_Found = Mapping[tuple[int, Way], list[_Measured]]


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    rounds, seconds = (1, 0.25) if quick else (8, 1.5)
    backends = free_ports(_READ)
    with backend(nginx.binary, work / "backend", ports=backends):
        progress("idle")
        idle = _idle(work, backends=backends, seconds=seconds)
        found = _rounds(work, nginx, backends=backends, rounds=rounds, seconds=seconds, progress=progress)
    progress("picks alone")
    alone = [
        measure(size, endpoints=endpoints, picks=max(20, min(10_000, 100_000_000 // size) // (100 if quick else 1)))
        for size in (*_BARS, _LARGE)
        for endpoints in (_FEW, _MANY)
    ]
    cells = [_cell(size, way, found) for size, way in _JOBS]
    figures = {
        "rounds": rounds,
        "seconds_per_cell": seconds,
        "connections": _CONNECTIONS,
        "endpoints": {Way.FEW: _FEW, Way.MANY: _MANY},
        "idle_endpoints": _READ,
        "idle_cores": idle,
        "alone": alone,
        "cells": cells,
    }
    return Outcome(figures=figures, tables=(_table(cells), _table_of_alone(alone)), bars=tuple(_bars(cells, idle=idle)))


def _rounds(
    work: Path, nginx: Nginx, *, backends: Sequence[int], rounds: int, seconds: float, progress: Progress
) -> _Found:
    """All ways in turn, in rounds after a first one that does not count."""
    found: defaultdict[tuple[int, Way], list[_Measured]] = defaultdict(list)
    with _targets(work, nginx, backends=backends) as targets, load_generator() as load:
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}" if number else "warming up")
            for size, way in _JOBS:
                target = targets[way]
                # An access log of all rounds would be larger than the memory of a small machine.
                os.truncate(target.access_log, 0)
                earlier = _picks(target)
                before = cpu_of(target.pids)
                done = load.run(Job(target.port, target.host, size, _CONNECTIONS, seconds, path=target.path))
                # What ended last is told a little later.
                time.sleep(_SETTLES_WITHIN)
                cpu = cpu_of(target.pids) - before
                if number:
                    found[size, way].append(_Measured(done, cpu, _picks(target) - earlier))
    return found


@contextmanager
def _targets(work: Path, nginx: Nginx, *, backends: Sequence[int]) -> Iterator[dict[Way, _Target]]:
    """Each pool behind a gateway of its own: a picker reads the endpoints of all its pools, which its picks pay for."""
    (plain_port,) = free_ports(1)
    with ExitStack() as stack:
        plain = stack.enter_context(
            plain_proxy(nginx.binary, work / "plain", port=plain_port, backends=backends[:_FEW])
        )
        few = stack.enter_context(_pool(work, Way.FEW, backends=backends[:_FEW]))
        many = stack.enter_context(_pool(work, Way.MANY, backends=backends[:_MANY]))
        yield {
            Way.PLAIN: _Target(plain.port, "plain.example.com", tree(plain.pid), plain.access_log),
            Way.FEW: few,
            Way.MANY: many,
            Way.BYTES: replace(few, path=_PATH_WITHOUT_PROMPTS, picker=None),
        }


@contextmanager
def _pool(work: Path, name: str, *, backends: Sequence[int]) -> Iterator[_Target]:
    """A gateway with a pool of these backends."""
    (port,) = free_ports(1)
    directory, home = work / f"{name}-resources", work / name
    write_gateway(directory, port=port)
    host = write_tuned_pool(directory, name=name, backends=backends)
    with gateway(directory, work=home, port=port, host=host, path="/v1/models") as running:
        pids = running.pids()[Role.PICKER]
        yield _Target(port, host, pids, running.access_log, picker=home / "state" / PICKER_SOCKET)


def _idle(work: Path, *, backends: Sequence[int], seconds: float) -> float:
    """Share of a core that the picker takes without requests: it reads all endpoints every second."""
    with _pool(work, "idle", backends=backends) as target:
        before, began = cpu_of(target.pids), time.monotonic()
        time.sleep(max(1.0, 2 * seconds))
        return (cpu_of(target.pids) - before) / (time.monotonic() - began)


def _picks(target: _Target) -> PickTimes:
    return pick_times(target.picker) if target.picker else PickTimes()


def _cell(size: int, way: Way, found: _Found) -> Cell:
    rounds = found[size, way]
    return Cell(
        body_bytes=size,
        way=way,
        requests=sum(each.load.requests for each in rounds),
        failed=sum(each.load.failed for each in rounds),
        median_us=spread([each.load.median * 1e6 for each in rounds]),
        requests_per_second=spread([each.load.requests / each.load.seconds for each in rounds]),
        cpu_us=spread([each.per_request * 1e6 for each in rounds]),
        picked_within_us=_us(within(sum((each.picks for each in rounds), PickTimes()), 0.99)),
        compared=_compared(size, way, found),
    )


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


def _compared(size: int, way: Way, found: _Found) -> Spread | None:
    match way:
        case Way.PLAIN | Way.BYTES:
            return None
        case Way.FEW:
            other = Way.BYTES if size == _LONG else Way.PLAIN
        case Way.MANY:
            other = Way.FEW
    pairs = zip(found[size, way], found[size, other], strict=True)
    return spread([one.per_request / against.per_request for one, against in pairs])


def _bars(cells: list[Cell], *, idle: float) -> Iterator[Bar]:
    yield Bar(f"cores of the picker for {_READ} endpoints without a request", idle, _IDLE_BAR, "")
    for cell in cells:
        if cell.compared is None or cell.body_bytes == _LARGE:
            continue
        size = f"{cell.body_bytes // 1000} KB"
        if cell.way is Way.MANY:
            what, limit = f"a pick among {_MANY} endpoints to one among {_FEW}, {size}", _MANY_BAR
        elif cell.body_bytes in _BARS:
            what, limit = f"CPU of a pick to NGINX's of a plain request, {size}", _BARS[cell.body_bytes]
        else:
            what, limit = f"a pick with a prompt of {size} to one with its bytes alone", _LONG_BAR
        yield Bar(what, cell.compared.median, limit, "x")


def _table(cells: list[Cell]) -> Table:
    rows = tuple(
        (
            f"{cell.body_bytes // 1000} KB",
            cell.way.value,
            f"{cell.median_us.median:.0f}",
            f"{cell.requests_per_second.median:,.0f}",
            f"{cell.cpu_us.median:.1f}",
            f"{cell.picked_within_us:.0f}" if cell.picked_within_us is not None else "",
            f"{cell.compared.median:.2f} ({cell.compared.low:.2f}–{cell.compared.high:.2f})" if cell.compared else "",
            str(cell.failed),
        )
        for cell in cells
    )
    title = (
        f"A pick: CPU of the picker, of plain NGINX's; few: {_FEW} endpoints to plain or to its bytes, "
        f"many: {_MANY} to few; {_CONNECTIONS} connections; medians over rounds (quartiles)"
    )
    return Table(title, ("body", "way", "median µs", "req/s", "CPU µs", "p99 of the pick µs", "x", "failed"), rows)


def _table_of_alone(found: list[Alone]) -> Table:
    rows = tuple(
        (f"{one.body_bytes // 1000} KB", str(one.endpoints), f"{one.median_us:.0f}", f"{one.p99_us:.0f}")
        for one in found
    )
    return Table("Single picks without sockets: processor time", ("body", "endpoints", "median µs", "p99 µs"), rows)
