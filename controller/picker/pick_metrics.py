"""Metrics of picks under the names of the field that ours have no twin for; see `request_page` for those of requests.

Source: llm-d-router, docs/metrics.md.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from controller.picker.answers import Outcome
from controller.picker.pools import PoolTable
from controller.picker.request_counts import SHARES

_PREFIX: Final = "llm_d_epp_"
_FAILED: Final = (Outcome.POOL_EMPTY, Outcome.BUSY, Outcome.FILTERED, Outcome.EXHAUSTED, Outcome.BROKEN)
"""Of picks for which an endpoint was looked for in vain."""


def pick_metrics(table: PoolTable, picks: Mapping[tuple[str, Outcome], int]) -> Iterator[Metric]:
    """The families. `picks` are counts by pool and outcome."""
    yield _attempts(table, picks)
    yield _hit_ratios(table)
    yield _decisions(table)
    yield _info()


def _attempts(table: PoolTable, picks: Mapping[tuple[str, Outcome], int]) -> Metric:
    """Picks by the endpoint. One that is in several pools has one count, as has a pod that came anew by its name."""
    attempts = CounterMetricFamily(
        f"{_PREFIX}scheduler_attempts",
        "Picks, by the endpoint that was picked.",
        labels=("status", "endpoint_name", "namespace", "port"),
    )
    picked: Counter[tuple[str, str, str]] = Counter()
    for endpoint in table.endpoints:
        picked[*_named(endpoint.name), endpoint.address.rpartition(":")[2]] += endpoint.picks
    for names, count in sorted(picked.items()):
        attempts.add_metric(("success", *names), count)
    failed = sum(picks.get((pool, outcome), 0) for pool in table.pools for outcome in _FAILED)
    attempts.add_metric(("failure", "", "", ""), failed)
    return attempts


def _hit_ratios(table: PoolTable) -> Metric:
    ratios = HistogramMetricFamily(
        f"{_PREFIX}prefix_indexer_hit_ratio",
        "Shares of prompts that the picked endpoint had by its index.",
        labels=("name", "namespace"),
    )
    for pool in table.pools.values():
        told = pool.memory.hit_ratios
        bounds = (*map(str, SHARES), "+Inf")
        buckets = list(zip(bounds, map(float, accumulate(told[:-1])), strict=True))
        ratios.add_metric(_named(pool.name), buckets, told[-1])
    return ratios


def _decisions(table: PoolTable) -> Metric:
    decisions = CounterMetricFamily(
        f"{_PREFIX}model_rewrite_decisions",
        "Requests that were given a model by a rewrite.",
        labels=("name", "namespace", "model_rewrite_name", "model_name", "target_model"),
    )
    for pool in table.pools.values():
        by_name: Counter[tuple[str, str, str]] = Counter()
        for (source, model, target), count in pool.memory.rewritten.counts.items():
            # The source is `Kind namespace/name, rule 0`.
            by_name[source.partition(",")[0].rpartition("/")[2], model, target] += count
        for names, count in sorted(by_name.items()):
            decisions.add_metric((*_named(pool.name), *names), count)
    return decisions


def _info() -> Metric:
    info = GaugeMetricFamily(
        f"{_PREFIX}info", "1, with the version; no commit is known.", labels=("commit", "build_ref")
    )
    try:
        release = version("infergate")
    except PackageNotFoundError:
        # Run from its source.
        release = ""
    info.add_metric(("", release), 1)
    return info


def _named(key: str) -> tuple[str, str]:
    """Name and namespace, from `namespace/name`."""
    namespace, _, name = key.rpartition("/")
    return name, namespace
