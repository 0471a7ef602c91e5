"""What Prometheus gets to see."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from controller.picker.field_metrics import SAME
from controller.picker.flow_control.counts import MOST_PRIORITIES
from controller.picker.flow_control.metrics import flow_control_metrics

from .conftest import POOL, Entrance, entrance, ticket


def text_of(door: Entrance) -> str:
    class Gates(Collector):
        def collect(self) -> list[Metric]:
            return list(flow_control_metrics({POOL: door.gate}))

    registry = CollectorRegistry()
    registry.register(Gates())
    return generate_latest(registry).decode()


def test_metrics_of_a_queue() -> None:
    door = entrance(maxRequests=2)
    for _ in range(4):
        door.ask(ticket(size=10))
    door.now = 0.3
    door.complete()
    lines = text_of(door).splitlines()
    for line in (
        'infergate_flow_control_requests_total{outcome="Dispatched",pool="llm/gpu",priority="0"} 2.0',
        'infergate_flow_control_requests_total{outcome="RejectedCapacity",pool="llm/gpu",priority="0"} 1.0',
        'infergate_flow_control_drops_total{pool="llm/gpu",priority="0",reason="queue_full"} 1.0',
        'infergate_flow_control_queue_size{pool="llm/gpu",priority="0"} 1.0',
        'infergate_flow_control_queue_bytes{pool="llm/gpu",priority="0"} 10.0',
        'infergate_flow_control_global_capacity_utilization_requests{pool="llm/gpu"} 0.5',
        'infergate_flow_control_stale_endpoints{detector="concurrency-detector",pool="llm/gpu"} 0.0',
    ):
        assert line in lines
    duration = "infergate_flow_control_request_queue_duration_seconds"
    labels = 'outcome="Dispatched",pool="llm/gpu",priority="0"'
    assert f'{duration}_bucket{{le="0.001",{labels}}} 1.0' in lines
    assert f'{duration}_bucket{{le="0.5",{labels}}} 2.0' in lines
    assert f"{duration}_sum{{{labels}}} 0.3" in lines


def test_a_band_that_nobody_waits_in_any_more_is_told_as_empty() -> None:
    door = entrance()
    for _ in range(2):
        door.ask(ticket(7))
    assert 'infergate_flow_control_queue_size{pool="llm/gpu",priority="7"} 1.0' in text_of(door).splitlines()
    door.complete()
    assert 'infergate_flow_control_queue_size{pool="llm/gpu",priority="7"} 0.0' in text_of(door).splitlines()


def test_every_family_but_the_drops_has_a_name_in_the_field() -> None:
    families = {family.name.removeprefix("infergate_") for family in flow_control_metrics({})}
    assert families - SAME == {"flow_control_drops"}
    assert {name for name in SAME if name.startswith("flow_control_")} <= families


def test_tenants_and_endless_priorities_are_no_labels() -> None:
    door = entrance(slots=10**6)
    for n in range(3 * MOST_PRIORITIES):
        door.ask(ticket(n, tenant=f"tenant-{n}"))
    text = text_of(door)
    assert "tenant-" not in text
    assert text.count("infergate_flow_control_requests_total{") == MOST_PRIORITIES + 1
