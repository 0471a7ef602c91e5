"""What a picked request costs, beside a plain `proxy_pass`, the gateway's own rule for a Service, and a rule that asks
for the model.

The four ways take turns within each round, so that what else the machine does hits all of them.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from tools.bench.gateway import Gateway, gateway
from tools.bench.load import Job, Load, LoadGenerator, load_generator
from tools.bench.processes import Role, cpu_of, tree
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import MODEL_HOST, PICKED_HOST, SERVICE_HOST, write_gateway, write_pool
from tools.bench.samples import Spread, spread
from tools.bench.servers import PlainProxy, backend, free_ports, plain_proxy

_SIZES: Final = (1_000, 16_000, 200_000)
_CONNECTIONS: Final = (1, 32)
_ENDPOINTS: Final = 6
_BAR: Final = 3.0
_MODEL_BAR: Final = 1.5
_MODEL_SIZES: Final = (1_000, 16_000)
"""For which there is a bar."""


class Way(StrEnum):
    """How a request reaches the backend."""

    PLAIN = "plain"
    PICKED = "picked"
    SERVICE = "service"
    MODEL = "model"


class Part(StrEnum):
    """Processes whose CPU is told apart."""

    NGINX = "nginx"
    PICKER = "picker"
    CONTROLLER = "controller"


_PARTS: Final = {
    Role.NGINX_MASTER: Part.NGINX,
    Role.NGINX_WORKER: Part.NGINX,
    Role.PICKER: Part.PICKER,
    Role.RELAY: Part.PICKER,
    Role.CONTROLLER: Part.CONTROLLER,
}


@dataclass(frozen=True)
class Scale:
    rounds: int
    seconds: float
    """Of load, for each cell in each round."""


FULL: Final = Scale(rounds=6, seconds=1.5)
QUICK: Final = Scale(rounds=1, seconds=0.25)


@dataclass(frozen=True)
class Measured:
    """One window of load."""

    load: Load
    cpu: dict[Part, float]
    """Seconds that each part used."""

    @property
    def cpu_per_request(self) -> float:
        """Seconds, of nginx and picker together."""
        return (self.cpu[Part.NGINX] + self.cpu.get(Part.PICKER, 0.0)) / self.load.requests


@dataclass(frozen=True)
class Cell:
    """One way, size of body and number of connections, over all rounds."""

    body_bytes: int
    connections: int
    way: Way
    requests: int
    failed: int
    median_us: Spread
    p99_us: Spread
    requests_per_second: Spread
    cpu_us: dict[Part, Spread]
    """Microseconds of CPU per request."""


@dataclass(frozen=True)
class Ratio:
    """CPU per request of nginx and picker together, as a multiple of plain in the same round."""

    body_bytes: int
    connections: int
    picked_to_plain: Spread
    service_to_plain: Spread
    model_to_plain: Spread
    model_to_picked: Spread


@dataclass(frozen=True)
class _Target:
    port: int
    host: str
    pids: dict[Part, tuple[int, ...]]
    access_log: Path


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    scale = QUICK if quick else FULL
    rounds: defaultdict[tuple[int, int, Way], list[Measured]] = defaultdict(list)
    with _targets(work, nginx) as targets, load_generator() as load:
        _warm_up(targets, load, seconds=scale.seconds)
        for number in range(scale.rounds):
            progress(f"round {number + 1} of {scale.rounds}")
            for size in _SIZES:
                for connections in _CONNECTIONS:
                    for way, target in targets.items():
                        job = Job(target.port, target.host, size, connections, scale.seconds)
                        rounds[size, connections, way].append(_measure(target, load, job))
    cells = [_cell(size, connections, way, found) for (size, connections, way), found in rounds.items()]
    ratios = [
        Ratio(
            body_bytes=size,
            connections=connections,
            picked_to_plain=_ratio(rounds[size, connections, Way.PICKED], rounds[size, connections, Way.PLAIN]),
            service_to_plain=_ratio(rounds[size, connections, Way.SERVICE], rounds[size, connections, Way.PLAIN]),
            model_to_plain=_ratio(rounds[size, connections, Way.MODEL], rounds[size, connections, Way.PLAIN]),
            model_to_picked=_ratio(rounds[size, connections, Way.MODEL], rounds[size, connections, Way.PICKED]),
        )
        for size in _SIZES
        for connections in _CONNECTIONS
    ]
    return Outcome(
        figures={"rounds": scale.rounds, "seconds_per_cell": scale.seconds, "cells": cells, "ratios": ratios},
        tables=(_table(cells, ratios),),
        bars=tuple(
            Bar(
                what=f"CPU of picked to plain, {_size(ratio.body_bytes)} at {_connections(ratio.connections)}",
                value=ratio.picked_to_plain.median,
                limit=_BAR,
                unit="x",
            )
            for ratio in ratios
        )
        + tuple(
            Bar(
                what=f"CPU of model to picked, {_size(ratio.body_bytes)} at {_connections(ratio.connections)}",
                value=ratio.model_to_picked.median,
                limit=_MODEL_BAR,
                unit="x",
            )
            for ratio in ratios
            if ratio.body_bytes in _MODEL_SIZES
        ),
    )


@contextmanager
def _targets(work: Path, nginx: Nginx) -> Iterator[dict[Way, _Target]]:
    *backends, port, plain_port = free_ports(_ENDPOINTS + 2)
    directory = work / "resources"
    write_gateway(directory, port=port)
    write_pool(directory, backends=backends)
    with ExitStack() as stack:
        stack.enter_context(backend(nginx.binary, work / "backend", ports=backends))
        plain = stack.enter_context(plain_proxy(nginx.binary, work / "plain", port=plain_port, backends=backends))
        under_test = stack.enter_context(
            gateway(directory, work=work / "gateway", port=port, host=PICKED_HOST, path="/v1/models")
        )
        yield {
            Way.PLAIN: _plain_target(plain),
            Way.PICKED: _gateway_target(under_test, PICKED_HOST),
            Way.SERVICE: _gateway_target(under_test, SERVICE_HOST),
            Way.MODEL: _gateway_target(under_test, MODEL_HOST),
        }


def _plain_target(plain: PlainProxy) -> _Target:
    return _Target(plain.port, "plain.example.com", {Part.NGINX: tree(plain.pid)}, plain.access_log)


def _gateway_target(under_test: Gateway, host: str) -> _Target:
    pids: defaultdict[Part, tuple[int, ...]] = defaultdict(tuple)
    for role, found in under_test.pids().items():
        pids[_PARTS[role]] += found
    return _Target(under_test.port, host, dict(pids), under_test.access_log)


def _warm_up(targets: dict[Way, _Target], load: LoadGenerator, *, seconds: float) -> None:
    for target in targets.values():
        for size in _SIZES:
            load.run(Job(target.port, target.host, size, max(_CONNECTIONS), seconds / len(_SIZES)))


def _measure(target: _Target, load: LoadGenerator, job: Job) -> Measured:
    # An access log of all rounds would be larger than the memory of a small machine.
    os.truncate(target.access_log, 0)
    before = _cpu(target)
    done = load.run(job)
    after = _cpu(target)
    return Measured(done, {part: after[part] - before[part] for part in after})


def _cpu(target: _Target) -> dict[Part, float]:
    return {part: cpu_of(pids) for part, pids in target.pids.items()}


def _ratio(these: list[Measured], plain: list[Measured]) -> Spread:
    return spread([one.cpu_per_request / other.cpu_per_request for one, other in zip(these, plain, strict=True)])


def _cell(size: int, connections: int, way: Way, rounds: list[Measured]) -> Cell:
    return Cell(
        body_bytes=size,
        connections=connections,
        way=way,
        requests=sum(each.load.requests for each in rounds),
        failed=sum(each.load.failed for each in rounds),
        median_us=spread([each.load.median * 1e6 for each in rounds]),
        p99_us=spread([each.load.p99 * 1e6 for each in rounds]),
        requests_per_second=spread([each.load.requests / each.load.seconds for each in rounds]),
        cpu_us={part: spread([each.cpu[part] / each.load.requests * 1e6 for each in rounds]) for part in rounds[0].cpu},
    )


def _table(cells: list[Cell], ratios: list[Ratio]) -> Table:
    columns = (
        "body",
        "connections",
        "way",
        "median µs",
        "p99 µs",
        "req/s",
        "nginx µs",
        "picker µs",
        "x plain",
        "failed",
    )
    times = {(ratio.body_bytes, ratio.connections): ratio for ratio in ratios}
    rows = []
    for cell in cells:
        ratio = times[cell.body_bytes, cell.connections]
        compared = {
            Way.PLAIN: None,
            Way.PICKED: ratio.picked_to_plain,
            Way.SERVICE: ratio.service_to_plain,
            Way.MODEL: ratio.model_to_plain,
        }[cell.way]
        picker = cell.cpu_us.get(Part.PICKER)
        rows.append(
            (
                _size(cell.body_bytes),
                str(cell.connections),
                cell.way.value,
                f"{cell.median_us.median:.0f}",
                f"{cell.p99_us.median:.0f}",
                f"{cell.requests_per_second.median:,.0f}",
                f"{cell.cpu_us[Part.NGINX].median:.1f}",
                f"{picker.median:.1f}" if picker and cell.way in (Way.PICKED, Way.MODEL) else "",
                f"{compared.median:.2f} ({compared.low:.2f}–{compared.high:.2f})" if compared else "",
                str(cell.failed),
            )
        )
    title = "Request path: latency, req/s and CPU per request by process; medians over rounds (quartiles)"
    return Table(title, columns, tuple(rows))


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _size(size: int) -> str:
    return f"{size // 1000} KB"
