"""What 10,000 rules cost: to render, to load, in memory, and for each request to the first and the last of them.

Times to render and of requests are of the processor, and of several rounds the least counts: what else the machine does
only adds to it.
"""

import asyncio
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.agent.apply import Applier
from controller.agent.nginx import Nginx, check
from controller.agent.state import State, locked
from controller.bundle import Bundle
from controller.errors import NginxRefused
from controller.garbage import collect_seldom
from controller.pools import encode_pools
from controller.provider.file import read
from controller.resources.snapshot import Snapshot
from tools.bench.failures import CannotMeasure
from tools.bench.pipeline import stages
from tools.bench.processes import cpu_seconds, memory, tree
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.rule_layouts import Layout, Probe, layouts
from tools.bench.servers import backend, free_ports

_RENDERED_WITHIN: Final = 2.0
_MOST: Final = 1.2
"""CPU of a request to the last rule over that of one to the first."""
_PATIENCE: Final = 30.0
_BATCH: Final = 100
"""Requests that are sent at once on a connection."""


@dataclass(frozen=True)
class Cost:
    """CPU time of nginx's worker for a request, to the first and to the last rule of a kind, in microseconds."""

    kind: str
    first_us: float
    last_us: float

    @property
    def ratio(self) -> float:
        return self.last_us / self.first_us


@dataclass(frozen=True)
class Row:
    layout: str
    rules: int
    listeners: int
    rendered_bytes: int
    render_seconds: float
    """From resources that are read to files."""
    test_seconds: float
    """Of `nginx -t`."""
    worker_mb: float
    """Of 10^6 bytes, resident, after the requests."""
    costs: list[Cost]


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    routes, listeners, rounds = (50, 4, 3) if quick else (1000, 64, 15)
    collect_seldom()
    rows = []
    for layout in layouts(routes=routes, listeners=listeners):
        progress(f"{layout.rules:,} rules, {layout.name}")
        place = work / layout.name.replace(" ", "-")
        backend_port, port = free_ports(2)
        layout.write(place / "resources", port=port, backend=backend_port)
        with backend(nginx.binary, place / "backend", ports=(backend_port,)):
            rows.append(asyncio.run(_row(layout, place=place, port=port, nginx=nginx, rounds=rounds)))
    return Outcome(figures={"rows": rows}, tables=(_table(rows), _costs_table(rows)), bars=tuple(_bars(rows)))


async def _row(layout: Layout, *, place: Path, port: int, nginx: Nginx, rounds: int) -> Row:
    snapshot = read(place / "resources")
    renderings = [_rendered(snapshot) for _ in range(3)]
    bundle = renderings[0][1]
    with locked(place / "s") as state:
        state.pools.write_bytes(encode_pools(bundle.pools))
        async with Applier(state, nginx) as applier:
            report = await applier.apply(bundle)
            if isinstance(report, NginxRefused) or applier.pid is None:
                raise CannotMeasure(f"nginx refused {layout.name}: {report}")
            seconds = await _test_seconds(nginx, state)
            (worker,) = set(tree(applier.pid)) - {applier.pid}
            costs = await asyncio.to_thread(_costs, layout, port=port, worker=worker, rounds=rounds)
            resident = memory(worker).resident
    return Row(
        layout=layout.name,
        rules=layout.rules,
        listeners=layout.listeners,
        rendered_bytes=sum(len(file.content) for file in bundle.files),
        render_seconds=min(seconds for seconds, _ in renderings),
        test_seconds=seconds,
        worker_mb=resident / 1e6,
        costs=costs,
    )


def _rendered(snapshot: Snapshot) -> tuple[float, Bundle]:
    begun = time.process_time()
    bundle = stages(snapshot).bundle
    return time.process_time() - begun, bundle


async def _test_seconds(nginx: Nginx, state: State) -> float:
    begun = time.perf_counter()
    refusal = await check(nginx, state, "current/nginx.conf", stdout=subprocess.DEVNULL)
    if refusal is not None:
        raise CannotMeasure(f"nginx refused what it serves: {refusal}")
    return time.perf_counter() - begun


def _costs(layout: Layout, *, port: int, worker: int, rounds: int) -> list[Cost]:
    found = []
    for first, last in layout.probes():
        pair = (_Asked(first, port, layout.listeners > 1), _Asked(last, port, layout.listeners > 1))
        samples: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):  # one after the other, so that what else the machine does hits both
            for asked, values in zip(pair, samples, strict=True):
                before = cpu_seconds(worker)
                asked.ask()
                values.append((cpu_seconds(worker) - before) / _BATCH * 1e6)
        for asked in pair:
            asked.close()
        found.append(Cost(first.kind, *map(min, samples)))
    return found


class _Asked:
    """A kept connection on which one request is sent again and again."""

    def __init__(self, probe: Probe, port: int, is_tls: bool) -> None:
        lines = [f"{probe.method} {probe.target} HTTP/1.1", f"Host: {probe.host}", "Content-Length: 0"]
        lines += [f"{name}: {value}" for name, value in probe.headers]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self._probe = probe
        self._connection = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        if is_tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._connection = context.wrap_socket(self._connection, server_hostname=probe.host)
        self._size = self._size_of_one()

    def ask(self) -> None:
        """Sends a batch and reads its answers, which are all of one size."""
        self._connection.sendall(self._request * _BATCH)
        self._read(self._size * _BATCH)

    def close(self) -> None:
        self._connection.close()

    def _size_of_one(self) -> int:
        self._connection.sendall(self._request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive(65536)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise CannotMeasure(f"{self._probe} was answered {head.splitlines()[0]!r}")
        start = head.index(b"\r\n\r\n") + 4
        fields = dict(line.lower().split(b": ", 1) for line in head[:start].split(b"\r\n")[1:-2])
        size = start + int(fields[b"content-length"])
        self._read(size - len(head))
        return size

    def _read(self, size: int) -> None:
        while size > 0:
            size -= len(self._receive(min(size, 1 << 20)))

    def _receive(self, size: int) -> bytes:
        data = self._connection.recv(size)
        if not data:
            raise CannotMeasure(f"the connection ended while {self._probe} was asked")
        return data


def _bars(rows: list[Row]) -> list[Bar]:
    rendering = [
        Bar(f"rendering of {row.rules:,} rules, {row.layout}", row.render_seconds, _RENDERED_WITHIN, "s")
        for row in rows
    ]
    return rendering + [
        Bar(f"last {cost.kind} over first, {row.layout}", cost.ratio, _MOST, "x") for row in rows for cost in row.costs
    ]


def _table(rows: list[Row]) -> Table:
    shown = tuple(
        (
            row.layout,
            f"{row.rules:,}",
            str(row.listeners),
            f"{row.rendered_bytes / 1e6:.1f}",
            f"{row.render_seconds:.2f}",
            f"{row.test_seconds:.2f}",
            f"{row.worker_mb:.0f}",
        )
        for row in rows
    )
    columns = ("where", "rules", "listeners", "MB", "render s", "nginx -t s", "worker MB")
    return Table("Rules: to files, into nginx, in its memory", columns, shown)


def _costs_table(rows: list[Row]) -> Table:
    shown = tuple(
        (row.layout, cost.kind, f"{cost.first_us:.1f}", f"{cost.last_us:.1f}", f"{cost.ratio:.2f}")
        for row in rows
        for cost in row.costs
    )
    return Table("CPU of nginx for a request", ("where", "rule", "first us", "last us", "ratio"), shown)
