"""The picker's metrics under the names of the field besides, for dashboards and autoscalers that know these.

What means the same there has a twin with the prefix `llm_d_epp_`. Its labels are the field's: a pool is told by its
name, which is `inference_pool` beside queues, and by its namespace, since a gateway has several pools where a picker of
the field has one. Labels that clients could fill, as tenants and models, are left out.
Source: llm-d-router, docs/metrics.md.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_OURS: Final = "infergate_"
_FIELD: Final = "llm_d_epp_"
_QUEUES: Final = "flow_control_"
SAME: Final = frozenset(
    {
        "average_kv_cache_utilization",
        "average_queue_size",
        "average_running_requests",
        "flow_control_capacity_utilization_bytes",
        "flow_control_capacity_utilization_requests",
        "flow_control_global_capacity_utilization_bytes",
        "flow_control_global_capacity_utilization_requests",
        "flow_control_pool_saturation",
        "flow_control_queue_bytes",
        "flow_control_queue_size",
        "flow_control_request_queue_duration_seconds",
        "flow_control_requests",
        "flow_control_stale_endpoints",
        "inflight_requests",
        "inflight_tokens",
        "per_endpoint_queue_size",
        "prefix_indexer_size",
        "ready_endpoints",
        "scheduler_e2e_duration_seconds",
        "std_dev_kv_cache_utilization",
        "std_dev_queue_size",
        "std_dev_running_requests",
    }
)
"""Families, without prefix and without the `_total` of counters."""


class WithFieldNames(Collector):
    """A collector's families, each followed by its twin where it has one."""

    def __init__(self, ours: Collector) -> None:
        self._ours = ours

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        for family in self._ours.collect():
            yield family
            name = family.name.removeprefix(_OURS)
            if name in SAME:
                yield _twin(family, name=name)


def _twin(family: Metric, *, name: str) -> Metric:
    twin = Metric(_FIELD + name, family.documentation, family.type)
    pool = "inference_pool" if name.startswith(_QUEUES) else "name"
    twin.samples = [
        Sample(_FIELD + one.name.removeprefix(_OURS), _labels(one.labels, pool=pool), one.value)
        for one in family.samples
    ]
    return twin


def _labels(ours: Mapping[str, str], *, pool: str) -> dict[str, str]:
    if "pool" not in ours:
        return dict(ours)
    namespace, _, name = ours["pool"].rpartition("/")
    return {pool: name, "namespace": namespace} | {key: value for key, value in ours.items() if key != "pool"}
