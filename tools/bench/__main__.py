"""`python -m tools.bench [NAME...]`: runs benchmarks one after the other, prints tables and writes JSON."""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from controller.agent.nginx import Nginx, find
from controller.errors import NginxMissing
from tools.bench import change_to_live, ext_proc, external, memory, peers, pick, pipeline, request_path, rules
from tools.bench.failures import CannotMeasure
from tools.bench.progress import Progress, done, progress
from tools.bench.report import Outcome, machine, show, write


class Benchmark(Protocol):
    def __call__(self, *, quick: bool, work: Path, nginx: Nginx, progress: Progress) -> Outcome:
        """Runs in a directory of its own, in which it may leave files."""
        ...


BENCHMARKS: Final[dict[str, Benchmark]] = {
    "request_path": request_path.run,
    "pick": pick.run,
    "change_to_live": change_to_live.run,
    "memory": memory.run,
    "pipeline": pipeline.run,
    "rules": rules.run,
    "external": external.run,
    "ext_proc": ext_proc.run,
    "peers": peers.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 also when a bar is missed; 1 when something could not be measured, 2 when there is no nginx."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="Measure Infergate on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: shows that it works, not how fast")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="DIR", help="where JSON goes")
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name}; there are {', '.join(BENCHMARKS)}")
    try:
        nginx = find(environment=os.environ)
    except NginxMissing as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    where = machine(nginx)
    print(f"{where.processors} processors ({where.processor}), shared with the load generator and the backend;")
    print(f"nginx {where.nginx}, Python {where.python}, modules of the hot paths compiled: {where.compiled}\n")
    status = 0
    for name in chosen.names or BENCHMARKS:
        began, where = time.monotonic(), machine(nginx)
        # The state directory of a gateway holds Unix sockets, whose paths must be short.
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as work:
                outcome = BENCHMARKS[name](quick=chosen.quick, work=Path(work), nginx=nginx, progress=progress(name))
        except CannotMeasure as problem:
            print(f"bench: {name}: {problem}", file=sys.stderr)
            status = 1
            continue
        finally:
            done()
        path = write(outcome, name=name, directory=chosen.output, quick=chosen.quick, machine=where)
        print(f"{show(outcome)}\n\n{path}, {time.monotonic() - began:.0f} s\n", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
