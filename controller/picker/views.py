"""What `GET /pools` shows: everything known of each endpoint."""

import math
from typing import Final

import msgspec

from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.endpoints import Endpoint, Metrics
from controller.picker.metrics import State
from controller.picker.model_servers import Reading
from controller.pools import Engine

_DIGITS: Final = 3
"""Of seconds: milliseconds."""


class EndpointView(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint."""

    address: str
    name: str
    uid: str
    labels: dict[str, str]
    engine: Engine | None
    """As configured or found; None while unknown."""
    is_preferred: bool
    reason: str
    """Why it is not preferred; empty when it is."""
    in_flight: int
    oldest_in_flight: float | None
    """Seconds since the oldest request in flight was sent."""
    backlog_tokens: int
    """Estimated tokens that are not cached, of requests whose first byte was not seen."""
    slowness: float
    """Seconds per token, relative to the pool's."""
    slots: int | None
    """Requests that it runs at once; None while none was seen to wait."""
    prefix_chunks: int
    """Chunks of prompts in its index."""
    prefix_capacity: int
    """Chunks of one generation of the index, of which there are two."""
    prefix_trust: float
    """Share of its cache that the index stands for; see `PrefixIndex`."""
    restarts: int
    metrics: Metrics
    reading: Reading | None
    reading_age: float | None
    """Seconds since it last answered a scrape."""
    from_others: int
    """Requests in the reading that were not sent from here."""
    failures: dict[str, int]
    scrape_failures: int
    pause: float
    """Seconds of the current pause, 0 when it does not fail."""
    paused_for: float
    """Seconds until a request is let through."""


class PoolView(msgspec.Struct, frozen=True, rename="camel"):
    """One pool."""

    name: str
    failure_mode: str
    endpoints: tuple[EndpointView, ...]


class PoolsView(msgspec.Struct, frozen=True, rename="camel"):
    """Every pool."""

    etag: str | None
    """Of the pools file; None until one was read."""
    in_flight: int
    leaving: tuple[EndpointView, ...]
    """Endpoints that left their pools with requests in flight."""
    pools: tuple[PoolView, ...]


def pools_view(state: State) -> PoolsView:
    """The state as it is shown."""
    now = state.clock()
    return PoolsView(
        etag=state.table.etag,
        in_flight=len(state.in_flight),
        leaving=tuple(
            _endpoint(endpoint, now=now, staleness=0.0) for endpoint in state.table.endpoints if endpoint.retired
        ),
        pools=tuple(
            PoolView(
                name=pool.name,
                failure_mode=pool.failure_mode.value,
                endpoints=tuple(
                    _endpoint(endpoint, now=now, staleness=pool.watch.staleness) for endpoint in pool.endpoints
                ),
            )
            for pool in state.table.pools.values()
        ),
    )


def _endpoint(endpoint: Endpoint, *, now: float, staleness: float) -> EndpointView:
    reason = _reason(endpoint, now=now, staleness=staleness)
    return EndpointView(
        address=endpoint.address,
        name=endpoint.name,
        uid=endpoint.uid,
        labels=endpoint.labels,
        engine=endpoint.reading.engine if endpoint.reading else endpoint.engine,
        is_preferred=not reason,
        reason=reason,
        in_flight=len(endpoint.open),
        oldest_in_flight=round(now - next(iter(endpoint.open.values())).at, _DIGITS) if endpoint.open else None,
        backlog_tokens=endpoint.backlog // BYTES_PER_TOKEN,
        slowness=round(endpoint.slowness, _DIGITS),
        slots=None if math.isinf(endpoint.slots) else int(endpoint.slots),
        prefix_chunks=len(endpoint.prefixes),
        prefix_capacity=endpoint.prefixes.capacity,
        prefix_trust=endpoint.prefixes.trust,
        restarts=endpoint.restarts,
        metrics=endpoint.metrics,
        reading=endpoint.reading,
        reading_age=round(now - endpoint.answered_at, _DIGITS) if endpoint.answered_at > -math.inf else None,
        from_others=endpoint.foreign,
        failures={failure.value: count for failure, count in sorted(endpoint.health.failures.items())},
        scrape_failures=endpoint.scrape_failures,
        pause=endpoint.health.pause,
        paused_for=round(max(0.0, endpoint.health.paused_until - now), _DIGITS),
    )


def _reason(endpoint: Endpoint, *, now: float, staleness: float) -> str:
    if endpoint.retired:
        return "left its pools"
    if not endpoint.health.may_serve(now):
        return "fails"
    if endpoint.answered_at == -math.inf:
        return "not read yet"
    return "" if endpoint.answered_at >= now - staleness else "reading too old"
