"""How long it takes from a saved file until a request shows what was changed, and which steps the time goes to.

The whole is seen from outside, with requests to a gateway that runs as users run it. The steps are timed in this
process, on a second nginx, with the gateway's own functions.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.agent import releases
from controller.agent.apply import Applier
from controller.agent.nginx import Nginx
from controller.agent.state import locked, replace_file
from controller.pools import encode_pools
from controller.provider.file import FileProvider
from tools.bench.failures import CannotMeasure
from tools.bench.gateway import Gateway, gateway
from tools.bench.pipeline import Memories, stages
from tools.bench.progress import Progress
from tools.bench.report import Bar, Outcome, Table
from tools.bench.resources import REVISION_HEADER, Routes, write_gateway
from tools.bench.samples import Spread, percentile, spread
from tools.bench.servers import backend, free_ports

_STEPS: Final = ("notice", "read", "build", "translate", "render", "write", "reload and confirm")
_PATIENCE: Final = 30.0
"""Seconds after which a change is given up."""
_PAUSE: Final = 0.003
"""Seconds between two requests that look for the change."""
_BARS: Final = {10: 0.2, 1000: 1.0}
"""Seconds within which a change is live, at the 95th percentile, by number of routes."""
_STRIDE: Final = 37
"""Routes between one that is changed and the next."""


@dataclass(frozen=True)
class Case:
    routes: int
    in_one_file: bool
    changes: int
    timed: int
    """Changes whose steps are timed."""


FULL: Final = (
    Case(10, in_one_file=False, changes=40, timed=10),
    Case(100, in_one_file=False, changes=30, timed=10),
    Case(1000, in_one_file=False, changes=30, timed=10),
    Case(1000, in_one_file=True, changes=15, timed=5),
)
QUICK: Final = (
    Case(10, in_one_file=False, changes=3, timed=2),
    Case(100, in_one_file=True, changes=3, timed=2),
)


@dataclass(frozen=True)
class Row:
    routes: int
    in_one_file: bool
    changes: int
    live_ms: Spread
    """From the end of the save until a request showed it."""
    live_p95_ms: float
    logged_ms: Spread
    """What the gateway's log says, from the moment it noticed."""
    steps_ms: dict[str, Spread]


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    rows = []
    for case in QUICK if quick else FULL:
        name = f"{case.routes:,} routes in {'one file' if case.in_one_file else 'a file each'}"
        progress(name)
        rows.append(_row(case, work=work / f"{case.routes}-{case.in_one_file}", nginx=nginx))
    return Outcome(
        figures={"rows": rows},
        tables=(_table(rows), _steps_table(rows)),
        bars=tuple(
            Bar(f"from saved to live with {row.routes:,} routes{_shape(row)}, p95", row.live_p95_ms, limit * 1000, "ms")
            for row in rows
            if (limit := _BARS.get(row.routes)) is not None
        ),
    )


def _row(case: Case, *, work: Path, nginx: Nginx) -> Row:
    backend_port, port = free_ports(2)
    directory = work / "resources"
    routes = Routes(directory, count=case.routes, backend=backend_port, in_one_file=case.in_one_file)
    write_gateway(directory, port=port)
    routes.write()
    with backend(nginx.binary, work / "backend", ports=(backend_port,)):
        with gateway(
            directory, work=work / "gateway", port=port, host=routes.host(0), path=routes.path(0)
        ) as under_test:
            live = [_until_live(under_test, routes, number) for number in range(1, case.changes + 1)]
            logged = under_test.logged_live()[1:]
        steps = asyncio.run(_steps(routes, work=work / "steps", nginx=nginx, changes=case.timed))
    return Row(
        routes=case.routes,
        in_one_file=case.in_one_file,
        changes=case.changes,
        live_ms=_milliseconds(live),
        live_p95_ms=percentile(live, 0.95) * 1000,
        logged_ms=_milliseconds(logged),
        steps_ms={step: _milliseconds(steps[step]) for step in _STEPS},
    )


def _until_live(under_test: Gateway, routes: Routes, number: int) -> float:
    """Saves the change of this number and waits for it; gives seconds.

    Raises CannotMeasure when it does not come.
    """
    route = number * _STRIDE % routes.count
    routes.save(route, revision=number)
    saved = time.perf_counter()
    while (waited := time.perf_counter() - saved) < _PATIENCE:
        answer = under_test.ask(routes.host(route), routes.path(route))
        if answer.headers.get(REVISION_HEADER) == str(number):
            return time.perf_counter() - saved
        time.sleep(_PAUSE)
    raise CannotMeasure(f"change {number} was not live after {waited:.0f} s")


async def _steps(routes: Routes, *, work: Path, nginx: Nginx, changes: int) -> dict[str, list[float]]:
    """Seconds of each step, for each change."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    snapshots = FileProvider(routes.directory).snapshots()
    first, _ = await anext(snapshots)
    # Always one in waiting, as in the gateway: else a change is told with the time of an earlier event.
    coming = asyncio.ensure_future(anext(snapshots))
    with locked(work / "state") as state:
        async with Applier(state, nginx) as applier:
            memories = Memories()
            await applier.apply(stages(first, memories=memories).bundle)
            for number in range(1, changes + 1):
                saved = time.monotonic()
                routes.save(number * _STRIDE % routes.count, revision=1000 + number)
                snapshot, change = await asyncio.wait_for(coming, _PATIENCE)
                coming = asyncio.ensure_future(anext(snapshots))
                found["notice"].append(change.detected_at - saved)
                found["read"].append(time.monotonic() - change.detected_at)
                timed = stages(snapshot, memories=memories)
                for stage, seconds in timed.seconds.items():
                    found[stage].append(seconds)
                begun = time.monotonic()
                replace_file(state.pools, encode_pools(timed.bundle.pools))
                pools = time.monotonic() - begun
                begun = time.monotonic()
                await applier.apply(timed.bundle)
                applied = time.monotonic() - begun
                with locked(work / "scratch") as scratch:
                    begun = time.monotonic()
                    releases.write(scratch, timed.bundle)
                    written = time.monotonic() - begun
                found["write"].append(pools + written)
                found["reload and confirm"].append(max(0.0, applied - written))
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)
    return found


def _milliseconds(seconds: list[float] | tuple[float, ...]) -> Spread:
    return spread([value * 1000 for value in seconds])


def _shape(row: Row) -> str:
    return " in one file" if row.in_one_file else ""


def _table(rows: list[Row]) -> Table:
    shown = tuple(
        (
            f"{row.routes:,}{_shape(row)}",
            str(row.changes),
            f"{row.live_ms.median:.0f} ({row.live_ms.low:.0f}–{row.live_ms.high:.0f})",
            f"{row.live_p95_ms:.0f}",
            f"{row.logged_ms.median:.0f}",
        )
        for row in rows
    )
    columns = ("routes", "changes", "median ms", "p95 ms", "by the log ms")
    return Table("Change to live: from a saved file until a request shows it", columns, shown)


def _steps_table(rows: list[Row]) -> Table:
    shown = tuple(
        (f"{row.routes:,}{_shape(row)}", *(f"{row.steps_ms[step].median:.1f}" for step in _STEPS)) for row in rows
    )
    return Table("The steps in ms, medians", ("routes", *_STEPS), shown)
