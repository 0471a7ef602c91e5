"""`python -m tools.bench.picking`: runs scenarios under policies, keeps what was found, and compares."""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.agent.nginx import find
from controller.errors import NginxMissing
from tools.bench.failures import CannotMeasure
from tools.bench.picking.comparison import bars, contests, figures_table, missing, shares_table
from tools.bench.picking.measure import FULL, QUICK, Length, Plan, Run, measure
from tools.bench.picking.policies import Policy
from tools.bench.picking.results import Results, code_version, is_done, of_version
from tools.bench.picking.scenarios import SCENARIOS
from tools.bench.picking.shares import Part
from tools.bench.progress import done, progress
from tools.bench.report import Outcome, show

_ROOT: Final = Path(__file__).parents[3]
_SEEDS: Final = 5
"""p90 of one run moves up to twofold between seeds: fewer say little."""
_QUICK_SCENARIOS: Final = ("high", "hot44")
_QUICK_POLICIES: Final = (Policy.DEFAULT, Policy.PREFIX_AFFINITY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 also when a bar is missed; 1 when something could not be measured, 2 when there is no nginx."""
    chosen = _arguments(arguments)
    results = Results(chosen.output / ("picking-quick.json" if chosen.quick else "picking.json"))
    try:
        if not chosen.table:
            find(environment=os.environ)
            # Warnings of the agent and the picker are expected when runs end, and are in the logs of the gateway.
            logging.basicConfig(level=logging.ERROR, format="%(message)s")
            status = _run_all(_plans(chosen), results, length=QUICK if chosen.quick else FULL, again=chosen.again)
        else:
            status = 0
        _show(results, all_versions=chosen.all_versions, seeds=chosen.seeds, is_quick=chosen.quick)
    except NginxMissing as problem:
        print(f"bench-picking: {problem}", file=sys.stderr)
        return 2
    except CannotMeasure as problem:
        print(f"bench-picking: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        done()
        return 130
    return status


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.picking",
        description="Compare ways to choose a model server, on simulated ones behind the gateway.",
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="may be given more than once (default: all)"
    )
    parser.add_argument(
        "--policy",
        action="append",
        type=Policy,
        choices=list(Policy),
        help="may be given more than once (default: all)",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help=f"how many, from 1 on (default: {_SEEDS}, or 1 of --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="few and short runs: shows that it works, not how fast")
    parser.add_argument("--again", action="store_true", help="run also what has been run by this code")
    parser.add_argument("--table", action="store_true", help="run nothing, and show what there is")
    parser.add_argument("--all-versions", action="store_true", help="show the last runs, whatever code they were by")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), metavar="DIR", help="where JSON goes")
    chosen = parser.parse_args(arguments)
    chosen.scenario = chosen.scenario or (_QUICK_SCENARIOS if chosen.quick else tuple(SCENARIOS))
    chosen.policy = chosen.policy or (_QUICK_POLICIES if chosen.quick else tuple(Policy))
    chosen.seeds = chosen.seeds or (1 if chosen.quick else _SEEDS)
    return chosen


def _plans(chosen: argparse.Namespace) -> list[Plan]:
    """The policies of a scenario and seed one after the other: they are compared, and the machine changes with time."""
    return [
        Plan(scenario, policy, seed)
        for seed in range(1, chosen.seeds + 1)
        for scenario in chosen.scenario
        for policy in chosen.policy
    ]


def _run_all(plans: Sequence[Plan], results: Results, *, length: Length, again: bool) -> int:
    """The exit status."""
    status = 0
    say = progress("bench-picking")
    for number, plan in enumerate(plans):
        version = code_version(_ROOT)
        if not again and is_done(plan, results.runs(), version=version):
            continue
        say(f"{number + 1} of {len(plans)}: {plan.scenario}, {plan.policy}, seed {plan.seed}")
        # The state directory of a gateway holds Unix sockets, whose paths must be short.
        with tempfile.TemporaryDirectory(prefix="bench-") as work:
            try:
                run = measure(plan, length=length, work=Path(work) / "run", version=version)
            except CannotMeasure as problem:
                done()
                print(f"bench-picking: {plan.scenario}, {plan.policy}: {problem}", file=sys.stderr)
                status = 1
                continue
        done()
        results.add(run)
        print(_line(run), flush=True)
    return status


def _line(run: Run) -> str:
    figures, shares = run.figures, run.shares
    parts = ", ".join(f"{part} {shares.parts[part]:.2f}" for part in Part)
    text = (
        f"{time.strftime('%H:%M:%S')} {run.scenario} {run.policy} seed {run.seed}: "
        f"p50 {figures.first_p50:.3f} p90 {figures.first_p90:.3f} s, goodput {figures.goodput:.3f}, "
        f"hits {figures.hit_share:.3f}, {figures.requests} requests, {figures.failed} failed; "
        f"{parts}, others {shares.others:.2f}, busy {shares.busy:.0%}, compiled {run.compiled}"
    )
    return f"{text}\n  means nothing: {', '.join(run.strain)}" if run.strain else text


def _show(results: Results, *, all_versions: bool, seeds: int, is_quick: bool) -> None:
    runs = results.runs()
    if not runs:
        print(f"{results.path} has no runs")
        return
    current = code_version(_ROOT)
    known = {run.version for run in runs}
    version = current if current in known else max(runs, key=lambda run: run.time).version
    shown = of_version(runs, None if all_versions else version)
    sound = [run for run in shown if not run.strain]
    found = contests(sound)
    print(f"\n{results.path}: {len(sound)} runs by {'any code' if all_versions else f'code {version}'}", end="")
    print("" if all_versions or version == current else f", which is not that of today ({current})")
    if len(sound) < len(shown):
        print(f"left out: {len(shown) - len(sound)} runs during which the machine was too busy")
    print(f"\n{show(Outcome(figures={}, tables=(figures_table(found), shares_table(found)), bars=bars(found)))}")
    lacking = missing(found, seeds=seeds)
    if lacking and not is_quick:
        print(f"\nWithout {seeds} seeds so far:\n" + "\n".join(f"  {each}" for each in lacking))


if __name__ == "__main__":
    sys.exit(main())
