"""The relay's metrics, collected from its state when they are asked for.

Labels are pools and the addresses of pickers, from the pools file, and words of the relay's own.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.relay.errors import Fault
from controller.relay.pickers import Pickers
from controller.relay.tallies import BOUNDS, Outcome, Tallies

_PREFIX: Final = "infergate_relay"


class RelayCollector(Collector):
    """Metrics at the moment they are asked for."""

    def __init__(self, tallies: Tallies, pickers: Pickers, *, held: Callable[[], int]) -> None:
        """`held` says how many bytes of bodies are in memory."""
        self._tallies = tallies
        self._pickers = pickers
        self._held = held

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        yield from self._of_pools()
        yield from self._of_pickers()
        yield GaugeMetricFamily(f"{_PREFIX}_body_bytes", "Bytes of bodies in memory.", value=self._held())

    def _of_pools(self) -> Iterable[Metric]:
        under_way = GaugeMetricFamily(f"{_PREFIX}_requests_in_flight", "Requests in hand.", labels=("pool",))
        requests = CounterMetricFamily(f"{_PREFIX}_requests", "Requests by how they ended.", labels=("pool", "outcome"))
        failures = CounterMetricFamily(
            f"{_PREFIX}_picker_failures", "Failures of the external picker.", labels=("pool", "reason")
        )
        tries = CounterMetricFamily(
            f"{_PREFIX}_endpoint_failures", "Endpoints that were asked in vain.", labels=("pool",)
        )
        choices = HistogramMetricFamily(
            f"{_PREFIX}_choice_seconds", "From asking the picker until it chose.", labels=("pool",)
        )
        for pool, tally in sorted(self._tallies.pools.items()):
            under_way.add_metric((pool,), tally.under_way)
            tries.add_metric((pool,), tally.tries_failed)
            for outcome in Outcome:
                requests.add_metric((pool, outcome.value), tally.outcomes[outcome])
            for fault in Fault:
                failures.add_metric((pool, fault.value), tally.faults[fault])
            bounds = [*map(str, BOUNDS), "+Inf"]
            counted = list(zip(bounds, accumulate(tally.choices.counts), strict=True))
            choices.add_metric((pool,), buckets=counted, sum_value=tally.choices.total)
        yield from (under_way, requests, failures, tries, choices)

    def _of_pickers(self) -> Iterable[Metric]:
        streams = GaugeMetricFamily(f"{_PREFIX}_streams", "Streams to the picker.", labels=("picker",))
        connected = GaugeMetricFamily(
            f"{_PREFIX}_picker_connected", "Whether there is a connection.", labels=("picker",)
        )
        serving = GaugeMetricFamily(f"{_PREFIX}_picker_serving", "Whether it says that it serves.", labels=("picker",))
        for address, links in self._pickers.by_address().items():
            streams.add_metric((address,), sum(link.streams for link in links))
            connected.add_metric((address,), any(link.is_connected for link in links))
            serving.add_metric((address,), all(link.is_serving for link in links))
        yield from (streams, connected, serving)


def exposition(collector: Collector) -> bytes:
    """What Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
