"""What the agent counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""A small file takes some 20 ms, the longest wait of all is 60 s."""


@dataclass(frozen=True)
class Metrics:
    """By outcome: `applied`, `refused` by nginx, or `failed`; and `newer`, `nothing` or `failed` for polls."""

    registry: CollectorRegistry
    bundles: Counter
    seconds: Histogram
    pools: Counter
    polls: Counter
    contact: Gauge


def metrics_of(is_serving: Callable[[], bool]) -> Metrics:
    """Metrics in a registry of their own."""
    registry = CollectorRegistry()
    serving = Gauge("infergate_agent_serving", "Whether nginx serves the newest version given", registry=registry)
    serving.set_function(lambda: float(is_serving()))
    return Metrics(
        registry=registry,
        bundles=Counter("infergate_agent_bundles", "Bundles by what became of them", ["outcome"], registry=registry),
        seconds=Histogram(
            "infergate_agent_apply_seconds",
            "From a bundle's arrival until it is live",
            registry=registry,
            buckets=_SECONDS,
        ),
        pools=Counter("infergate_agent_pools", "Changes of pools that needed no reload", registry=registry),
        polls=Counter("infergate_agent_polls", "Questions to the control plane", ["outcome"], registry=registry),
        contact=Gauge(
            "infergate_agent_last_contact_timestamp_seconds", "When the control plane last answered", registry=registry
        ),
    )
