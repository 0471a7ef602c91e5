"""The flow control's metrics, collected from its counts when they are asked for.

Labels are the pool and the priority, both from the configuration. Tenants are none: they come from clients.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from controller.picker.flow_control.counts import DISPATCHED, WAIT_SECONDS, Counts, Label, Waits
from controller.picker.flow_control.gate import Gate
from controller.picker.flow_control.queue import Band

_OF_BAND: Final = ("pool", "priority")


def flow_control_metrics(gates: Mapping[str, Gate]) -> Iterator[Metric]:
    """All families, from the gates by pool."""
    yield from _outcomes(gates)
    yield from _bands(gates)
    yield from _pools(gates)


def _outcomes(gates: Mapping[str, Gate]) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "infergate_flow_control_requests",
        "Requests that asked for admission, by how that ended.",
        labels=(*_OF_BAND, "outcome"),
    )
    drops = CounterMetricFamily(
        "infergate_flow_control_drops", "Requests that were not admitted.", labels=(*_OF_BAND, "reason")
    )
    waits = HistogramMetricFamily(
        "infergate_flow_control_request_queue_duration_seconds",
        "From asking for admission to its end.",
        labels=(*_OF_BAND, "outcome"),
    )
    for pool, gate in sorted(gates.items()):
        counts = gate.counts
        for (label, outcome), count in sorted(counts.by_outcome().items(), key=_text):
            requests.add_metric((pool, str(label), outcome), count)
            buckets, total = _histogram(counts, label, outcome)
            waits.add_metric((pool, str(label), outcome), buckets, total)
        for (label, drop), count in sorted(counts.drops.items(), key=_text):
            drops.add_metric((pool, str(label), drop.value), count)
    return (requests, drops, waits)


def _bands(gates: Mapping[str, Gate]) -> Iterable[Metric]:
    families = {
        name: GaugeMetricFamily(f"infergate_flow_control_{name}", text, labels=_OF_BAND)
        for name, text in (
            ("queue_size", "Waiting requests."),
            ("queue_bytes", "Bodies of waiting requests, which NGINX holds."),
            ("capacity_utilization_requests", "Share of the band's bound."),
            ("capacity_utilization_bytes", "Share of the band's bound."),
        )
    }
    for pool, gate in sorted(gates.items()):
        for band in gate.queue.bands:
            for family, value in zip(families.values(), _band_values(band), strict=True):
                family.add_metric((pool, str(band.priority)), value)
        # Bands come and go with those who wait in them. An autoscaler that follows one is told 0, not nothing.
        there = {band.priority for band in gate.queue.bands}
        for label in gate.counts.admitted_at_once:
            if label not in there:
                for family in families.values():
                    family.add_metric((pool, str(label)), 0)
    return families.values()


def _pools(gates: Mapping[str, Gate]) -> Iterable[Metric]:
    saturation = GaugeMetricFamily(
        "infergate_flow_control_pool_saturation", "0 idle, 1 full, when it was measured last.", labels=("pool",)
    )
    stale = GaugeMetricFamily(
        "infergate_flow_control_stale_endpoints", "Judged by own counts.", labels=("pool", "detector")
    )
    requests = GaugeMetricFamily(
        "infergate_flow_control_global_capacity_utilization_requests", "Share of the pool's bound.", labels=("pool",)
    )
    size = GaugeMetricFamily(
        "infergate_flow_control_global_capacity_utilization_bytes", "Share of the pool's bound.", labels=("pool",)
    )
    for pool, gate in sorted(gates.items()):
        settings = gate.policy.flow_control
        saturation.add_metric((pool,), gate.room.saturation)
        stale.add_metric((pool, gate.detector.name), gate.room.unknown)
        if settings.max_requests:
            requests.add_metric((pool,), gate.queue.count / settings.max_requests)
        if settings.max_bytes:
            size.add_metric((pool,), gate.queue.size / settings.max_bytes)
    return (saturation, stale, requests, size)


def _band_values(band: Band) -> tuple[float, ...]:
    settings = band.settings
    return (band.count, band.size, band.count / settings.max_requests, band.size / settings.max_bytes)


def _histogram(counts: Counts, label: Label, outcome: str) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum; who was admitted at once waited for nothing."""
    waits = counts.waits.get((label, outcome), Waits())
    each = list(waits.buckets)
    if outcome == DISPATCHED:
        each[0] += counts.admitted_at_once[label]
    bounds = (*map(str, WAIT_SECONDS), "+Inf")
    return list(zip(bounds, map(float, accumulate(each)), strict=True)), waits.total


def _text(item: tuple[tuple[Label, object], int]) -> tuple[str, str]:
    (label, other), _ = item
    return str(label), str(other)
