"""Upstreams of nginx: of Services, of pools and of the endpoints of pools."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controller.dialed import dialed_socket
from controller.ir.policies import BackendTls
from controller.ir.types import Certificate, GatewayConfig, Rule, ToPool, ToUpstream, Upstream
from controller.pools import Pool
from controller.render.destinations import targets_of
from controller.render.dialed import is_dialed, shown_to, sockets_of, stem_of
from controller.render.names import OF_SESSIONS, endpoint_variable, pool_upstream, service_upstream
from controller.render.quoting import expression, name
from controller.render.sessions import routes_of
from controller.resources.meta import Key


@dataclass(frozen=True)
class EndpointView:
    address: str
    upstream: str
    server: str
    """The address, or the socket behind which the dialer is."""


@dataclass(frozen=True)
class UpstreamView:
    """Endpoints of a Service port, as Gateways that show the same certificate reach them."""

    name: str
    source: Key
    servers: tuple[str, ...]
    """Addresses, or the sockets behind which the dialer is."""
    is_secured: bool
    routes: tuple[str, ...]
    """What sessions say of the servers, in their order; empty: it takes no sessions."""
    is_timed: bool
    """Whether a rule sends requests there for which it has less time than there may be need of."""


@dataclass(frozen=True)
class PoolView:
    """A pool; one behind the dialer, as Gateways that show the same certificate reach it."""

    pool: Pool
    upstream: str
    endpoints: tuple[EndpointView, ...]
    variable: str
    """Holds the upstream of the endpoint that was picked; empty for a pool in plain text, which shares them."""
    default: str
    """What that holds for an endpoint that has none, as written into the file."""


def upstream_views(config: GatewayConfig) -> Iterable[UpstreamView]:
    rules = [rule for server in config.servers for rule in server.rules]
    timed = _upstreams_of(rule for rule in rules if rule.timeouts)
    kept = _upstreams_of(rule for rule in rules if rule.session)
    for upstream in config.upstreams:
        for upstream_name, servers in _servers_of(upstream, config):
            view = UpstreamView(
                name=upstream_name,
                source=upstream.source,
                servers=servers,
                is_secured=upstream.tls is not None,
                routes=(),
                is_timed=upstream.name in timed,
            )
            yield view
            if upstream.name in kept:
                yield replace(view, name=f"{upstream_name}{OF_SESSIONS}", routes=routes_of(upstream.name, servers))


def pool_views(config: GatewayConfig, *, behind: Mapping[str, BackendTls]) -> Iterable[PoolView]:
    """behind: pools behind the dialer."""
    secured = {target.pool for target in targets_of(config) if isinstance(target, ToPool) and target.tls}
    shown = shown_to(config)
    for pool in config.pools:
        for each in shown if pool.name in behind else (None,):
            yield _pool_view(pool, tls=behind.get(pool.name), shown=each, is_secured=pool.name in secured)


def _upstreams_of(rules: Iterable[Rule]) -> set[str]:
    targets = (backend.target for rule in rules for backend in rule.backends)
    return {target.upstream for target in targets if isinstance(target, ToUpstream)}


def _servers_of(upstream: Upstream, config: GatewayConfig) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Names in nginx of an upstream with its addresses, or the sockets behind which the dialer is."""
    if not is_dialed(upstream.tls):
        yield service_upstream(upstream.name, shown=None), upstream.endpoints
        return
    for shown in shown_to(config):
        sockets = sockets_of(upstream, shown=shown)
        yield service_upstream(upstream.name, shown=shown), tuple(f"unix:{socket}" for socket in sockets)


def _pool_view(pool: Pool, *, tls: BackendTls | None, shown: Certificate | None, is_secured: bool) -> PoolView:
    """tls: of a pool behind the dialer, which shows a certificate or none."""
    upstream = pool_upstream(pool.name, shown=shown)
    # The same address may serve another pool by another policy.
    own = upstream.removeprefix("pool") if is_secured else ""
    stem = stem_of(tls, speaks_http2=pool.speaks_http2, shown=shown) if tls else ""
    addresses = sorted({endpoint.address for endpoint in pool.endpoints})
    servers = [f"unix:{dialed_socket(stem, address)}" if stem else address for address in addresses]
    return PoolView(
        pool=pool,
        upstream=upstream,
        endpoints=tuple(
            EndpointView(address, f"endpoint_{name(address)}{own}", server)
            for address, server in zip(addresses, servers, strict=True)
        ),
        variable=endpoint_variable(pool.name, shown=shown) if is_secured else "",
        # The colon ends the path of a socket.
        default=expression(f"unix:{stem}_", "${infergate_socket_name}", ".sock:") if stem else "$infergate_endpoint",
    )
