"""Timeouts of a rule, resolved into the values that templates render."""

from controller.ir.policies import WITHOUT_END, Timeouts
from controller.resources.gateway_api import HTTPRouteTimeouts
from controller.resources.scalars import seconds


def timeouts_of(item: HTTPRouteTimeouts | None) -> Timeouts | None:
    """The shorter of both bounds each try; the request's, or else the backend's, bounds the whole. 0 is no bound.

    Source: Gateway API, HTTPRouteTimeouts.
    """
    given = [seconds(value) for value in (item.request, item.backend_request) if value is not None] if item else []
    if not given:
        return None
    bounds = [value for value in given if value]
    return Timeouts(silence=min(bounds, default=WITHOUT_END), deadline=bounds[0] if bounds else None)
