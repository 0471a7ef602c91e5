"""Names in nginx of upstreams, and of what leads to them."""

from typing import Final

from controller.ir.types import Certificate
from controller.render.maps import digest
from controller.render.quoting import name

OF_SESSIONS: Final = "_sessions"
"""Ends the name of an upstream that takes sessions beside one that does not."""


def service_upstream(upstream: str, *, shown: Certificate | None = None) -> str:
    """Of a Service. shown: what the dialer shows, for an upstream behind it."""
    stem = f"service_{name(upstream)}"
    return f"{stem}_{name(shown.source.path)}" if shown else stem


def pool_upstream(pool: str, *, shown: Certificate | None) -> str:
    """Of a pool that endpoints are picked from. shown: as above, for a pool behind the dialer."""
    return f"pool_{name(pool)}_{name(shown.source.path)}" if shown else f"pool_{name(pool)}"


def endpoint_variable(pool: str, *, shown: Certificate | None) -> str:
    """Holds the upstream of the endpoint that was picked from a pool."""
    return f"$endpoint_{digest(f'{pool}:{shown.source.path}' if shown else pool)}"


def socket_of_http(port: int) -> str:
    """Where the servers of a port listen whose connections come by way of a choice among all that is on it."""
    return f"unix:run/https_{port}.sock"
