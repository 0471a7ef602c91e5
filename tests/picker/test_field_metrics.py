"""Metrics under the names of the field."""

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from controller.picker.field_metrics import SAME, WithFieldNames
from controller.picker.pick_metrics import pick_metrics
from controller.picker.request_page import request_page

from .conftest import Picker

_PAGE = Path(__file__).parents[2] / "docs" / "picker.md"


class _Ours(Collector):
    def collect(self) -> Iterable[Metric]:
        queue = GaugeMetricFamily("infergate_average_queue_size", "Mean.", labels=("pool",))
        queue.add_metric(("llm/gpu",), 2)
        yield queue
        flow = CounterMetricFamily("infergate_flow_control_requests", "By outcome.", labels=("pool", "outcome"))
        flow.add_metric(("llm/gpu", "Dispatched"), 3)
        yield flow
        yield HistogramMetricFamily(
            "infergate_scheduler_e2e_duration_seconds", "Of picks.", buckets=[("0.1", 1), ("+Inf", 2)], sum_value=1.5
        )
        yield GaugeMetricFamily("infergate_endpoint_paused", "The field has none.", value=1)


def _lines() -> list[str]:
    registry = CollectorRegistry()
    registry.register(WithFieldNames(_Ours()))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_what_means_the_same_is_told_under_both_names() -> None:
    lines = _lines()
    assert 'infergate_average_queue_size{pool="llm/gpu"} 2.0' in lines
    assert 'llm_d_epp_average_queue_size{name="gpu",namespace="llm"} 2.0' in lines
    counted = 'llm_d_epp_flow_control_requests_total{inference_pool="gpu",namespace="llm",outcome="Dispatched"} 3.0'
    assert counted in lines


def test_histograms_are_whole() -> None:
    told = [line for line in _lines() if line.startswith("llm_d_epp_scheduler_e2e_duration_seconds")]
    assert told == [
        'llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="0.1"} 1.0',
        'llm_d_epp_scheduler_e2e_duration_seconds_bucket{le="+Inf"} 2.0',
        "llm_d_epp_scheduler_e2e_duration_seconds_count 2.0",
        "llm_d_epp_scheduler_e2e_duration_seconds_sum 1.5",
    ]


def test_what_the_field_does_not_have_is_told_once() -> None:
    assert [line for line in _lines() if "endpoint_paused" in line] == ["infergate_endpoint_paused 1.0"]


def test_the_documentation_names_what_is_told_under_the_fields_names(picker: Picker) -> None:
    page = b"".join(request_page(picker.table, picker.in_flight)).decode()
    families = [*text_string_to_metric_families(page), *pick_metrics(picker.table, picker.director.picks)]
    named = re.findall(r"`llm_d_epp_(\w+?)(?:_total)?`", _PAGE.read_text())
    assert len(named) == len(set(named))
    assert set(named) == SAME | {family.name.removeprefix("llm_d_epp_") for family in families}
