"""`python -m tools.bench.cluster`: measures on the cluster that KUBECONFIG names, prints tables and writes JSON."""

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from controller.agent.nginx import find
from controller.errors import NginxMissing
from tools.bench.cluster import objects
from tools.bench.cluster.asking import all_answer, shows
from tools.bench.cluster.effort import Effort, effort, spent
from tools.bench.cluster.residents import Instance, instance_mb, leader_mb
from tools.bench.cluster.world import World, world
from tools.bench.failures import CannotMeasure
from tools.bench.progress import Progress, done, progress
from tools.bench.report import Bar, Outcome, Table, machine, show, write
from tools.bench.samples import percentile

_IDLE: Final = 10.0
"""Seconds without changes before memory is read."""


@dataclass(frozen=True)
class Size:
    """How many of what."""

    namespaces: int
    routes_each: int
    more: int
    changes: int
    pods: int

    def space(self, number: int) -> str:
        """The namespace of a route."""
        return f"team-{number % self.namespaces}"

    @property
    def first(self) -> range:
        return range(self.namespaces * self.routes_each)

    @property
    def second(self) -> range:
        return range(len(self.first), len(self.first) + self.more)


FULL: Final = Size(namespaces=150, routes_each=3, more=550, changes=10, pods=1000)
QUICK: Final = Size(namespaces=10, routes_each=3, more=20, changes=3, pods=20)


@dataclass(frozen=True)
class Wave:
    """Routes that were created in one go; all in seconds."""

    routes: int
    creating: float
    live_after_first: float
    live_after_last: float
    cpu: Effort
    """CPU seconds by program until the last route was live, most first."""


@dataclass(frozen=True)
class Found:
    """What a run measured."""

    first: Wave
    second: Wave
    changes: tuple[float, ...]
    """Seconds from an apply to the first request that shows it."""
    leader_mb: float
    idle: Instance
    """Before there are routes."""
    loaded: Instance
    """With all of them."""


async def measure(size: Size, progress: Progress) -> Found:
    """Raises CannotMeasure."""
    progress("installing")
    async with world() as found:
        await _prepare(found, size)
        progress(f"idle for {_IDLE:g} s")
        await asyncio.sleep(_IDLE)
        idle = instance_mb()
        progress(f"{len(size.first)} routes")
        first = await _wave(found, size, size.first)
        await asyncio.sleep(_IDLE)
        progress(f"{size.more} routes more")
        second = await _wave(found, size, size.second)
        await asyncio.sleep(_IDLE)
        progress(f"{size.changes} changes")
        changes = [await _change(found, size, revision) for revision in range(1, size.changes + 1)]
        progress(f"{size.pods} pods")
        await found.create((objects.node(), objects.pool()))
        await found.create(objects.pod(number) for number in range(size.pods))
        await found.set_pod_statuses(range(size.pods))
        await asyncio.sleep(_IDLE)
        return Found(first, second, tuple(changes), leader_mb(await found.leader()), idle, instance_mb())


def outcome_of(found: Found, size: Size) -> Outcome:
    """Tables and bars."""
    median, worst = percentile(found.changes, 0.5), max(found.changes)
    waves = (found.first, found.second)
    rows = tuple(
        (str(each.routes), _s(each.creating), _s(each.live_after_first), _s(each.live_after_last)) for each in waves
    )
    programs = tuple(dict.fromkeys(name for each in waves for name in each.cpu))
    instances = (("0", found.idle), (str(len(size.first) + size.more), found.loaded))
    return Outcome(
        figures={"size": size, "found": found},
        tables=(
            Table("Seconds until the last route answers", ("routes", "creating", "after first", "after last"), rows),
            Table(
                "CPU seconds of that time by program",
                ("routes", *programs),
                tuple((str(each.routes), *(_s(each.cpu.get(name, 0.0)) for name in programs)) for each in waves),
            ),
            Table("Seconds until a change of one route is seen", ("median", "worst"), ((_s(median), _s(worst)),)),
            Table(
                "Resident MB of an idle instance",
                ("routes", "agent", "picker"),
                tuple((routes, f"{each.agent:.0f}", f"{each.picker:.0f}") for routes, each in instances),
            ),
        ),
        bars=(
            Bar("the first routes live after the last creation", found.first.live_after_last, 3.0, "s"),
            Bar("the other routes live after the first creation", found.second.live_after_first, 5.0, "s"),
            Bar("a change seen, median", median, 0.4, "s"),
            Bar("a change seen, worst", worst, 0.8, "s"),
            Bar("resident memory of the leader", found.leader_mb, 250.0, "MB"),
            Bar("agent and picker of an instance without routes", found.idle.agent + found.idle.picker, 150.0, "MB"),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 also when a bar is missed; 1 when something could not be measured, 2 when there is no nginx."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.cluster", description="Measure Infergate in a cluster."
    )
    parser.add_argument("--quick", action="store_true", help="few of everything: shows that it works, not how fast")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="DIR", help="where JSON goes")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        where = machine(find(environment=os.environ))
    except NginxMissing as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    size = QUICK if chosen.quick else FULL
    try:
        outcome = outcome_of(asyncio.run(measure(size, progress("cluster"))), size)
    except CannotMeasure as problem:
        print(f"bench: cluster: {problem}", file=sys.stderr)
        return 1
    finally:
        done()
    path = write(outcome, name="cluster", directory=chosen.output, quick=chosen.quick, machine=where)
    print(f"{show(outcome)}\n\n{path}; modules of the hot paths compiled: {where.compiled}", flush=True)
    return 0


async def _prepare(found: World, size: Size) -> None:
    """Makes namespaces, each with a Service that leads to the echo pod."""
    spaces = [f"team-{number}" for number in range(size.namespaces)]
    await found.create(objects.namespace(space) for space in spaces)
    await found.create(
        chain.from_iterable(
            (objects.service(space), objects.endpoints(space, address=found.backend)) for space in spaces
        )
    )


async def _wave(found: World, size: Size, numbers: range) -> Wave:
    before, began = effort(), time.monotonic()
    await found.create(objects.route(number, namespace=size.space(number)) for number in numbers)
    created = time.monotonic()
    # The newest are asked first: they tell most about what is live.
    live = await all_answer(found.address, reversed(numbers))
    return Wave(len(numbers), created - began, live - began, live - created, spent(before, effort()))


async def _change(found: World, size: Size, revision: int) -> float:
    number = len(size.first) // 2
    began = time.monotonic()
    await found.apply(objects.route(number, namespace=size.space(number), revision=revision))
    return await shows(found.address, number, revision=revision) - began


def _s(seconds: float) -> str:
    return f"{seconds:.2f}"


if __name__ == "__main__":
    sys.exit(main())
