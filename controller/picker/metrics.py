"""The picker's metrics, collected from its state when they are asked for: a pick only adds to plain numbers.

Labels come from the pools file. Names have the prefix `infergate_`; what means the same in the field is told under its
name there too (`field_metrics`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.picker.completions import Completions
from controller.picker.decisions import Decisions
from controller.picker.director import Director
from controller.picker.durations import PickDurations
from controller.picker.endpoints import Endpoint, Metrics
from controller.picker.field_metrics import WithFieldNames
from controller.picker.flow_control.controller import FlowController
from controller.picker.flow_control.metrics import flow_control_metrics
from controller.picker.inflight import InFlight
from controller.picker.learned_metrics import learned_metrics
from controller.picker.pick_metrics import pick_metrics
from controller.picker.pools import PoolsSource, PoolState, PoolTable

_OF_POOL: Final = {
    "endpoints": "Endpoints of the pool.",
    "ready_endpoints": "Endpoints that are fresh and do not pause.",
    "average_queue_size": "Mean of the fresh readings.",
    "average_running_requests": "Mean of the fresh readings.",
    "average_kv_cache_utilization": "Mean of the fresh readings, 0 to 1.",
    "std_dev_queue_size": "Standard deviation of the fresh readings.",
    "std_dev_running_requests": "Standard deviation of the fresh readings.",
    "std_dev_kv_cache_utilization": "Standard deviation of the fresh readings.",
}
_OF_ENDPOINT: Final = ("pool", "endpoint_name", "model_server_endpoint")


@dataclass(frozen=True)
class State:
    """Everything that is told about."""

    table: PoolTable
    file: PoolsSource
    in_flight: InFlight
    completions: Completions
    director: Director
    flow: FlowController
    decisions: Decisions
    clock: Callable[[], float]


class StateCollector(Collector):
    """Metrics from the state at the moment they are asked for."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        yield from self._process()
        yield from self._pools()
        yield from self._endpoints()
        yield from learned_metrics(self._state.table)
        yield from flow_control_metrics(self._state.flow.gates)
        yield from pick_metrics(self._state.table, self._state.director.picks)

    def _process(self) -> Iterable[Metric]:
        state = self._state
        picks = CounterMetricFamily("infergate_picks", "Picks by how they ended.", labels=("pool", "outcome"))
        for (pool, outcome), count in sorted(state.director.picks.items()):
            picks.add_metric((pool, outcome.value), count)
        yield picks
        completions = state.completions
        for name, text, value in (
            ("infergate_completions", "Finished requests that NGINX told of.", completions.received),
            ("infergate_first_bytes", "First bytes of answers that NGINX told of.", completions.first_bytes),
            ("infergate_unknown_completions", "Completions of requests not picked here.", completions.unknown),
            ("infergate_unreadable_completions", "Lines of the feed without a completion.", completions.unreadable),
            ("infergate_expired_requests", "Requests whose end was lost.", state.in_flight.expired),
            ("infergate_pools_file_errors", "Times the pools file could not be read.", state.file.errors),
        ):
            yield CounterMetricFamily(name, text, value=value)

    def _pools(self) -> Iterable[Metric]:
        now = self._state.clock()
        families = {
            name: GaugeMetricFamily(f"infergate_{name}", text, labels=("pool",)) for name, text in _OF_POOL.items()
        }
        for pool in self._state.table.pools.values():
            for name, value in _pool_values(pool, oldest=now - pool.watch.staleness, now=now).items():
                families[name].add_metric((pool.name,), value)
        yield from families.values()

    def _endpoints(self) -> Iterable[Metric]:
        in_flight = GaugeMetricFamily("infergate_inflight_requests", "From pick to completion.", labels=_OF_ENDPOINT)
        waiting = GaugeMetricFamily(
            "infergate_per_endpoint_queue_size", "Waiting requests, as it told last.", labels=_OF_ENDPOINT
        )
        age = GaugeMetricFamily(
            "infergate_scrape_age_seconds", "Since the endpoint last answered a scrape.", labels=_OF_ENDPOINT
        )
        missing = GaugeMetricFamily(
            "infergate_endpoint_without_metrics", "1 when it answers without a reading.", labels=_OF_ENDPOINT
        )
        paused = GaugeMetricFamily("infergate_endpoint_paused", "1 while it is avoided.", labels=_OF_ENDPOINT)
        misses = CounterMetricFamily("infergate_scrape_failures", "Scrapes without an answer.", labels=_OF_ENDPOINT)
        failures = CounterMetricFamily(
            "infergate_endpoint_failures", "Requests that failed there.", labels=(*_OF_ENDPOINT, "reason")
        )
        now = self._state.clock()
        for pool, endpoint in self._members():
            labels = (pool.name, endpoint.name, endpoint.address)
            in_flight.add_metric(labels, len(endpoint.open))
            if endpoint.reading is not None:
                waiting.add_metric(labels, endpoint.reading.waiting)
            if endpoint.answered_at >= 0:
                age.add_metric(labels, now - endpoint.answered_at)
            missing.add_metric(labels, endpoint.metrics in (Metrics.MISSING, Metrics.UNKNOWN))
            paused.add_metric(labels, bool(endpoint.health.pause))
            misses.add_metric(labels, endpoint.scrape_failures)
            for failure, count in sorted(endpoint.health.failures.items()):
                failures.add_metric((*labels, failure.value), count)
        yield from (in_flight, waiting, age, missing, paused, misses, failures)

    def _members(self) -> Iterable[tuple[PoolState, Endpoint]]:
        for pool in self._state.table.pools.values():
            for endpoint in pool.endpoints:
                yield pool, endpoint


def registry_of(state: State) -> tuple[CollectorRegistry, PickDurations]:
    """A registry with all metrics, and the histogram of the time from a pick's whole body to its answer."""
    registry = CollectorRegistry()
    registry.register(WithFieldNames(StateCollector(state)))
    durations = PickDurations()
    registry.register(WithFieldNames(durations))
    return registry, durations


def _pool_values(pool: PoolState, *, oldest: float, now: float) -> Mapping[str, float]:
    fresh = [endpoint for endpoint in pool.endpoints if endpoint.answered_at >= oldest]
    readings = [endpoint.reading for endpoint in fresh if endpoint.reading]
    told: dict[str, list[float]] = {
        "queue_size": [one.waiting for one in readings] or [0],
        "running_requests": [one.running for one in readings] or [0],
        "kv_cache_utilization": [one.kv_use or 0.0 for one in readings] or [0.0],
    }
    return {
        "endpoints": len(pool.endpoints),
        "ready_endpoints": sum(endpoint.health.may_serve(now) for endpoint in fresh),
        **{f"average_{name}": fmean(values) for name, values in told.items()},
        **{f"std_dev_{name}": pstdev(values) for name, values in told.items()},
    }
