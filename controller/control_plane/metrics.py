"""Metrics of one replica of the control plane."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge


def registry_of(*, leads: Callable[[], bool], gateways: Callable[[], int]) -> CollectorRegistry:
    """Whether the replica writes, and how many Gateways it knows that have data planes."""
    registry = CollectorRegistry()
    leading = Gauge("infergate_controller_leads", "Whether this replica provisions and writes.", registry=registry)
    leading.set_function(lambda: float(leads()))
    known = Gauge("infergate_controller_gateways", "Gateways that have a data plane.", registry=registry)
    known.set_function(lambda: float(gateways()))
    return registry
