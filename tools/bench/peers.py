"""What a request costs with Infergate, beside routers that send prefixes where they are cached, and a plain proxy.

`make bench-peers` installs the peers from PyPI into an environment of their own. All take turns within each round and
have the same six endpoints. Infergate picks by its default rule, and in a pool where everything is on that a
PickerPolicy switches, with the tokens read from each answer, which the peers do not do, and without.
"""

import os
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from tools.bench.failures import CannotMeasure
from tools.bench.gateway import gateway
from tools.bench.load import Job, LoadGenerator, Measured, load_generator
from tools.bench.processes import Role, cpu_of, tree
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import PICKED_HOST, write_gateway, write_pool, write_tuned_pool
from tools.bench.samples import Spread, spread
from tools.bench.servers import backend, free_ports, plain_proxy

PROGRAMS: Final = Path("build/peers/bin")
"""Where `make bench-peers` puts them."""
_PEERS: Final[Mapping[str, tuple[str, ...]]] = {
    "sglang-router": ("python", "-m", "sglang_router.launch_router"),
    "smg": ("smg", "launch"),
    "vllm-router": ("python", "-m", "vllm_router.launch_router"),
}
"""Each in Rust, in one process that is proxy and picker."""
_COMPARED: Final = ("sglang-router", "smg")
"""Those with a bar."""
_SIZES: Final = (1_000, 16_000, 200_000)
_CONNECTIONS: Final = (1, 32)
_ENDPOINTS: Final = 6
_STARTS_WITHIN: Final = 60.0
_BAR: Final = 1.4
"""CPU of a request, as a multiple of what it takes with a router of one process."""
_PLAIN: Final = "plain"
_OURS: Final = "infergate"
_WITHOUT_USAGE: Final = "infergate, all on but usage"
_ALL_ON: Final = "infergate, all on"


@dataclass(frozen=True)
class _Target:
    port: int
    host: str
    pids: tuple[int, ...]
    log: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One size of body, number of connections and way, over all rounds."""

    body_bytes: int
    connections: int
    way: str
    requests: int
    failed: int
    median_us: Spread
    requests_per_second: Spread
    cpu_us: Spread
    """Microseconds per request."""
    to_plain: Spread
    """CPU per request as a multiple of the plain proxy's in the same round."""
    to_peers: dict[str, Spread]
    """Likewise of each peer's."""


_Found = Mapping[tuple[int, int, str], Sequence[Measured]]


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    rounds, seconds = (1, 0.3) if quick else (6, 1.5)
    found: defaultdict[tuple[int, int, str], list[Measured]] = defaultdict(list)
    with _targets(work, nginx) as targets, load_generator() as load:
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}" if number else "warming up")
            for size in _SIZES:
                for connections in _CONNECTIONS:
                    for way, target in targets.items():
                        measured = _measure(target, load, size=size, connections=connections, seconds=seconds)
                        if number:
                            found[size, connections, way].append(measured)
        ways = tuple(targets)
    cells = [
        _cell(size, connections, way, found=found, peers=[one for one in ways if one in _PEERS])
        for size in _SIZES
        for connections in _CONNECTIONS
        for way in ways
    ]
    figures = {"rounds": rounds, "seconds_per_cell": seconds, "endpoints": _ENDPOINTS, "cells": cells}
    return Outcome(figures=figures, tables=(_table(cells),), bars=tuple(_bars(cells)))


@contextmanager
def _targets(work: Path, nginx: Nginx) -> Iterator[dict[str, _Target]]:
    *backends, port, plain_port = free_ports(_ENDPOINTS + 2)
    directory = work / "resources"
    write_gateway(directory, port=port)
    write_pool(directory, backends=backends)
    tuned = write_tuned_pool(directory, name="tuned", backends=backends)
    without_usage = write_tuned_pool(directory, name="without-usage", backends=backends, usage=False)
    with ExitStack() as stack:
        stack.enter_context(backend(nginx.binary, work / "backend", ports=backends))
        plain = stack.enter_context(plain_proxy(nginx.binary, work / "plain", port=plain_port, backends=backends))
        ours = stack.enter_context(gateway(directory, work=work / "gateway", port=port, host=tuned, path="/v1/models"))
        between = (Role.NGINX_MASTER, Role.NGINX_WORKER, Role.PICKER)
        pids = tuple(pid for role, found in ours.pids().items() if role in between for pid in found)
        targets = {
            _PLAIN: _Target(plain.port, "plain.example.com", tree(plain.pid), plain.access_log),
            _OURS: _Target(port, PICKED_HOST, pids, ours.access_log),
            _WITHOUT_USAGE: _Target(port, without_usage, pids, ours.access_log),
            _ALL_ON: _Target(port, tuned, pids, ours.access_log),
        }
        for name, command in _PEERS.items():
            if (PROGRAMS / name).exists():
                targets[name] = stack.enter_context(_peer(name, command, work=work, backends=backends))
        yield targets


@contextmanager
def _peer(name: str, command: Sequence[str], *, work: Path, backends: Sequence[int]) -> Iterator[_Target]:
    port, metrics = free_ports(2)
    program, *arguments = command
    asked = [
        *(str((PROGRAMS / program).absolute()), *arguments),
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics)),
        *("--policy", "cache_aware", "--log-level", "error"),
        *("--worker-urls", *(f"http://127.0.0.1:{number}" for number in backends)),
    ]
    said = work / f"{name}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(asked, cwd=work, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""})
    try:
        deadline = time.monotonic() + _STARTS_WITHIN
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasure(f"{name} does not listen; it said last: {said.read_text(errors='replace')[-500:]}")
            time.sleep(0.1)
        yield _Target(port, "peer.example.com", tree(process.pid))
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def _measure(target: _Target, load: LoadGenerator, *, size: int, connections: int, seconds: float) -> Measured:
    if target.log is not None:
        # An access log of all rounds would be larger than the memory of a small machine.
        os.truncate(target.log, 0)
    before = cpu_of(target.pids)
    done = load.run(Job(target.port, target.host, size, connections, seconds))
    return Measured(done, cpu_of(target.pids) - before)


def _cell(size: int, connections: int, way: str, *, found: _Found, peers: Sequence[str]) -> Cell:
    rounds = found[size, connections, way]
    return Cell(
        body_bytes=size,
        connections=connections,
        way=way,
        requests=sum(each.load.requests for each in rounds),
        failed=sum(each.load.failed for each in rounds),
        median_us=spread([each.load.median * 1e6 for each in rounds]),
        requests_per_second=spread([each.load.requests / each.load.seconds for each in rounds]),
        cpu_us=spread([each.per_request * 1e6 for each in rounds]),
        to_plain=_ratio(rounds, found[size, connections, _PLAIN]),
        to_peers={peer: _ratio(rounds, found[size, connections, peer]) for peer in peers},
    )


def _ratio(these: Sequence[Measured], others: Sequence[Measured]) -> Spread:
    return spread([one.per_request / other.per_request for one, other in zip(these, others, strict=True)])


def _bars(cells: Sequence[Cell]) -> Iterator[Bar]:
    for cell in cells:
        if cell.way in (_OURS, _WITHOUT_USAGE, _ALL_ON):
            for peer in _COMPARED:
                if peer in cell.to_peers:
                    what = f"CPU of {cell.way} to {peer}'s, {_place(cell)}"
                    yield Bar(what=what, value=cell.to_peers[peer].median, limit=_BAR, unit="x")


def _place(cell: Cell) -> str:
    return f"{cell.body_bytes // 1000} KB at {cell.connections} connection{'s' if cell.connections > 1 else ''}"


def _table(cells: Sequence[Cell]) -> Table:
    rows = tuple(
        (
            f"{cell.body_bytes // 1000} KB",
            str(cell.connections),
            cell.way,
            f"{cell.median_us.median:,.0f}",
            f"{cell.requests_per_second.median:,.0f}",
            f"{cell.cpu_us.median:,.0f}",
            f"{cell.to_plain.median:.2f} ({cell.to_plain.low:.2f}–{cell.to_plain.high:.2f})",
            str(cell.failed),
        )
        for cell in cells
    )
    title = "Proxy and picker of each; medians over rounds (quartiles)"
    if not any(cell.way in _PEERS for cell in cells):
        title += "; no peer is installed, `make bench-peers` does"
    return Table(title, ("body", "connections", "way", "median µs", "req/s", "CPU µs", "x plain", "failed"), rows)
