"""How long and how often a rule tries, resolved into the values that templates render."""

from typing import Final

from controller.ir.policies import Retry, Timeouts
from controller.resources.gateway_api import HTTPRouteRetry, HTTPRouteTimeouts
from controller.resources.scalars import seconds

MOST_RETRIES: Final = 6
"""nginx allows ten internal redirects: a rule, its weight, these, and the gateway's answer when all fail take nine."""
_NOT_CAUGHT: Final = (499,)
"""Statuses that nginx's error_page refuses: it uses this one itself, for clients that hung up."""


def timeouts_of(item: HTTPRouteTimeouts | None) -> Timeouts | None:
    """None where nothing is said; 0 is without end. Source: Gateway API, HTTPRouteTimeouts."""
    if item is None or (item.request is None and item.backend_request is None):
        return None
    return Timeouts(request=_bound(item.request), backend=_bound(item.backend_request))


def retry_of(item: HTTPRouteRetry | None) -> Retry | None:
    """Source: Gateway API, HTTPRouteRetry."""
    if item is None:
        return None
    return Retry(
        attempts=min(item.attempts or 1, MOST_RETRIES),
        codes=tuple(sorted(set(item.codes).difference(_NOT_CAUGHT))),
        backoff=seconds(item.backoff) if item.backoff else 0.0,
    )


def ignored_of(item: HTTPRouteRetry | None, *, has_pool: bool) -> list[str]:
    """Fields of a rule that have no effect."""
    if item is None:
        return []
    fields = ["retry for InferencePools"] if has_pool else []
    fields += [f"retry.attempts above {MOST_RETRIES}"] if (item.attempts or 0) > MOST_RETRIES else []
    return fields + [f"retry.codes {code}" for code in _NOT_CAUGHT if code in item.codes]


def _bound(duration: str | None) -> float | None:
    return (seconds(duration) or None) if duration else None
