"""How long each stage takes from resources to files, alone in a process."""

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

from controller.agent.nginx import Nginx
from controller.bundle import Bundle
from controller.provider.file import read
from controller.reconcile import topology_of
from controller.render import memory as render_memory
from controller.render.files import RenderSettings, render
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.settings import usable_files
from controller.topology import memory as topology_memory
from controller.topology.types import Topology
from controller.translate.build import translate
from tools.bench.progress import Progress
from tools.bench.report import Outcome, Table
from tools.bench.resources import Routes, write_gateway
from tools.bench.samples import Spread, spread

_STAGES: Final = ("read", "build", "translate", "render")


@dataclass(frozen=True)
class Timed:
    """Seconds of each stage after reading, and what came out."""

    seconds: dict[str, float]
    bundle: Bundle


@dataclass(frozen=True)
class Row:
    routes: int
    resources: int
    rendered_bytes: int
    stages_ms: dict[str, Spread]


def run(*, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
    counts, reads, repeats = ((10, 100), 1, 2) if quick else ((10, 100, 1000), 3, 11)
    rows = []
    for count in counts:
        progress(f"{count:,} routes")
        directory = work / f"routes-{count}"
        write_gateway(directory, port=8080)
        Routes(directory, count=count, backend=8000).write()
        rows.append(_row(directory, count=count, reads=reads, repeats=repeats))
    return Outcome(figures={"rows": rows}, tables=(_table(rows),))


@dataclass(frozen=True)
class Memories:
    """What a turn of the gateway's loop leaves to the next."""

    built: topology_memory.Memory = field(default_factory=topology_memory.Memory)
    rendered: render_memory.Memory = field(default_factory=render_memory.Memory)


def stages(snapshot: Snapshot, *, memories: Memories | None = None) -> Timed:
    """The files of a snapshot, and the seconds that each stage took; without memories those of a first turn."""
    memories = memories or Memories()
    begun = perf_counter()
    topology = topology_of(snapshot, memory=memories.built)
    built = perf_counter()
    config = translate(topology, name="local", gateways=_gateways(topology))
    translated = perf_counter()
    bundle = render(config, RenderSettings(max_open_files=usable_files()), memory=memories.rendered)
    rendered = perf_counter()
    seconds = {"build": built - begun, "translate": translated - built, "render": rendered - translated}
    return Timed(seconds, bundle)


def _gateways(topology: Topology) -> frozenset[Key]:
    return frozenset(gateway.key for gateway in topology.gateways)


def _row(directory: Path, *, count: int, reads: int, repeats: int) -> Row:
    samples: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for _ in range(reads):
        begun = perf_counter()
        snapshot = read(directory)
        samples["read"].append(perf_counter() - begun)
    for _ in range(repeats):
        timed = stages(snapshot)
        for stage, seconds in timed.seconds.items():
            samples[stage].append(seconds)
    return Row(
        routes=count,
        resources=len(snapshot.resources),
        rendered_bytes=sum(len(file.content) for file in timed.bundle.files),
        stages_ms={stage: spread([value * 1000 for value in values]) for stage, values in samples.items()},
    )


def _table(rows: list[Row]) -> Table:
    shown = tuple(
        (
            f"{row.routes:,}",
            f"{row.resources:,}",
            f"{row.rendered_bytes / 1000:,.0f}",
            *(f"{row.stages_ms[stage].median:.1f}" for stage in _STAGES),
        )
        for row in rows
    )
    columns = ("routes", "resources", "files KB", "read, all ms", "build ms", "translate ms", "render ms")
    return Table("Pipeline: each stage alone, medians", columns, shown)
