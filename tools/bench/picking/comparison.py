"""Policies beside each other. Runs with the same seed are pairs: they were asked the same at the same moments."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tools.bench.picking.measure import Run
from tools.bench.picking.policies import Policy
from tools.bench.picking.scenarios import SCENARIOS
from tools.bench.picking.shares import Part
from tools.bench.report import Bar, Table
from tools.bench.samples import percentile

_TO_BEST: Final = 1.15
"""Most that the default's p90 may be of the best policy's, in every scenario."""
_TO_AFFINITY: Final = 0.2
"""Most that it may be of prefix affinity's, where one prompt is hotter than a pod."""
_HOT: Final = "hot44"
_GOODPUT: Final = 0.01
"""Most that the default's goodput may be below the best policy's."""

Measure = Callable[[Run], float]


@dataclass(frozen=True)
class Contest:
    """The runs of one scenario."""

    scenario: str
    runs: Mapping[Policy, tuple[Run, ...]]
    """Of each policy at least one, sorted by seed."""

    @property
    def shared_seeds(self) -> tuple[int, ...]:
        """Seeds that every policy has run, sorted."""
        seeds = [{run.seed for run in runs} for runs in self.runs.values()]
        return tuple(sorted(set.intersection(*seeds)))

    def best(self) -> Policy:
        """The policy with the lowest p90, by the geometric mean over shared seeds, or over all where none is shared.

        Of equals the first by name.
        """
        return min(sorted(self.runs), key=lambda policy: _middle(self._shared(policy)))

    def p90_to(self, policy: Policy, other: Policy) -> float | None:
        """Geometric mean of the ratios of p90 over seeds that both have run; None where there are none."""
        return _ratio(self.runs[policy], self.runs[other])

    def goodput_below_best(self, policy: Policy) -> float:
        """By how much the policy's mean over shared seeds is below that of the policy with the highest."""
        means = {each: _mean([run.figures.goodput for run in self._shared(each)]) for each in self.runs}
        return max(means.values()) - means[policy]

    def _shared(self, policy: Policy) -> Sequence[Run]:
        seeds = self.shared_seeds
        return [run for run in self.runs[policy] if run.seed in seeds] or self.runs[policy]


def contests(runs: Iterable[Run]) -> tuple[Contest, ...]:
    """Of the scenarios that have runs, in their order."""
    found: defaultdict[str, defaultdict[Policy, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: run.seed):
        found[run.scenario][run.policy].append(run)
    return tuple(
        Contest(name, {policy: tuple(found[name][policy]) for policy in Policy if policy in found[name]})
        for name in SCENARIOS
        if name in found
    )


def bars(found: Iterable[Contest]) -> tuple[Bar, ...]:
    """Those of the default policy, in scenarios in which another one has run too."""
    bars = []
    for contest in found:
        if Policy.DEFAULT not in contest.runs or len(contest.runs) < 2:
            continue
        best = contest.best()
        ratio = contest.p90_to(Policy.DEFAULT, best)
        if ratio is not None:
            bars.append(Bar(f"{contest.scenario}: p90 of default to {best}", ratio, _TO_BEST, "x"))
        if contest.scenario == _HOT and Policy.PREFIX_AFFINITY in contest.runs:
            ratio = contest.p90_to(Policy.DEFAULT, Policy.PREFIX_AFFINITY)
            if ratio is not None:
                bars.append(Bar(f"{contest.scenario}: p90 of default to affinity", ratio, _TO_AFFINITY, "x"))
        below = contest.goodput_below_best(Policy.DEFAULT)
        bars.append(Bar(f"{contest.scenario}: goodput of default below best", below, _GOODPUT, ""))
    return tuple(bars)


def missing(found: Iterable[Contest], *, seeds: int) -> tuple[str, ...]:
    """What the bars still need: scenarios and policies with fewer runs than so many seeds."""
    known = {contest.scenario: contest.runs for contest in found}
    lacking = []
    for name in SCENARIOS:
        few = [policy.value for policy in Policy if len(known.get(name, {}).get(policy, ())) < seeds]
        if few:
            lacking.append(f"{name}: {', '.join(few) if len(few) < len(Policy) else 'all policies'}")
    return tuple(lacking)


def figures_table(found: Iterable[Contest]) -> Table:
    """Medians over seeds, and ratios to the best policy of each scenario."""
    columns = ("scenario", "policy", "seeds", "p50 s", "p90 s", "x best", "token p90 ms", "goodput", "hits", "failed")
    rows = []
    for contest in found:
        best = contest.best()
        for policy, runs in contest.runs.items():
            ratio = contest.p90_to(policy, best)
            rows.append(
                (
                    contest.scenario,
                    policy.value,
                    str(len(runs)),
                    f"{_median(runs, lambda run: run.figures.first_p50):.3f}",
                    f"{_median(runs, lambda run: run.figures.first_p90):.3f}",
                    "" if ratio is None else f"{ratio:.2f}",
                    f"{_median(runs, lambda run: run.figures.token_p90 * 1000):.0f}",
                    f"{_median(runs, lambda run: run.figures.goodput):.3f}",
                    f"{_median(runs, lambda run: run.figures.hit_share):.3f}",
                    str(sum(run.figures.failed for run in runs)),
                )
            )
    return Table(
        "Time to first token: medians over seeds; ratios of p90 over pairs with the same seed", columns, tuple(rows)
    )


def shares_table(found: Iterable[Contest]) -> Table:
    """Medians over seeds of what the processors did."""
    columns = ("scenario", "policy", *(part.value for part in Part), "others", "busy", "pods late ms", "load late ms")
    rows = [
        (
            contest.scenario,
            policy.value,
            *(f"{_median(runs, _share_of(part)):.2f}" for part in Part),
            f"{_median(runs, lambda run: run.shares.others):.2f}",
            f"{_median(runs, lambda run: run.shares.busy):.0%}",
            f"{_median(runs, lambda run: run.lateness.pods * 1000):.1f}",
            f"{_median(runs, lambda run: run.lateness.load * 1000):.1f}",
        )
        for contest in found
        for policy, runs in contest.runs.items()
    ]
    return Table(
        "Processors: each part in whole ones, all in percent; lateness of event loops (p99)", columns, tuple(rows)
    )


def _share_of(part: Part) -> Measure:
    return lambda run: run.shares.parts[part]


def _median(runs: Sequence[Run], measure: Measure) -> float:
    return percentile([measure(run) for run in runs], 0.5)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _middle(runs: Sequence[Run]) -> float:
    """Geometric mean of p90."""
    return math.exp(_mean([math.log(run.figures.first_p90) for run in runs]))


def _ratio(these: Sequence[Run], others: Sequence[Run]) -> float | None:
    by_seed = {run.seed: run.figures.first_p90 for run in others}
    logs = [math.log(run.figures.first_p90 / by_seed[run.seed]) for run in these if run.seed in by_seed]
    return math.exp(_mean(logs)) if logs else None
