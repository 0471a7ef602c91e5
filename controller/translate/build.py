"""From what is attached to what, to what a proxy does. Total: every problem is a condition by now."""

from collections.abc import Collection, Sequence

import msgspec

from controller.ir.filters import Mirror
from controller.ir.hostnames import ANY
from controller.ir.types import GatewayConfig, Server, ToPool, ToUpstream
from controller.resources.meta import Key
from controller.topology.parameters import max_body_size
from controller.topology.types import GatewayState, ListenerState, RouteState, Topology
from controller.translate.asking import listing_pools, prioritized_pools
from controller.translate.servers import Attached, Listening, servers_of
from controller.translate.streams import HTTP_PROTOCOLS, serving, shares_a_port, streams_of, upstreams_of


def translate(topology: Topology, *, name: str, gateways: Collection[Key]) -> GatewayConfig:
    """The configuration of the data plane that serves the given Gateways.

    Holds the servers of these Gateways, and the upstreams and pools that their rules use.
    """
    routes = sorted(topology.routes, key=lambda route: route.created)
    attached = _attached(routes)
    listening = list(serving(topology, gateways=gateways))
    servers = servers_of(
        [
            _listening(gateway, listener, attached.get((listener.owner, listener.name), ()))
            for gateway, listener in listening
            if listener.protocol in HTTP_PROTOCOLS or shares_a_port(listener, others=(item for _, item in listening))
        ]
    )
    streams = streams_of(topology, gateways=gateways)
    used = upstreams_of(streams)
    upstreams, pools = _used(servers)
    prioritized, listing = prioritized_pools(servers), listing_pools(servers)
    return GatewayConfig(
        name=name,
        servers=servers,
        upstreams=tuple(upstream for upstream in topology.upstreams if upstream.name in upstreams),
        pools=tuple(
            msgspec.structs.replace(
                state.pool,
                is_prioritized=state.pool.name in prioritized,
                lists_models=state.pool.external is not None and state.pool.name in listing,
            )
            for state in topology.pools
            if state.pool.name in pools
        ),
        base_models=_base_models(topology, namespaces=_namespaces(routes, gateways=gateways)),
        streams=streams,
        stream_upstreams=tuple(upstream for upstream in topology.stream_upstreams if upstream.name in used),
    )


def _namespaces(routes: Sequence[RouteState], *, gateways: Collection[Key]) -> set[str]:
    """Of Gateways, and of the routes that are attached to them."""
    attached = {
        route.key.namespace
        for route in routes
        if any(parent.gateway in gateways and parent.listeners for parent in route.parents)
    }
    return attached | {gateway.namespace for gateway in gateways}


def _base_models(topology: Topology, *, namespaces: Collection[str]) -> tuple[tuple[str, str], ...]:
    """What these namespaces say of base models; of several for one name, the oldest holds."""
    found: dict[str, str] = {}
    for base in topology.base_models:
        if base.namespace in namespaces:
            for name in (base.name, *base.adapters):
                found.setdefault(name, base.name)
    return tuple(sorted(found.items()))


def _attached(routes: list[RouteState]) -> dict[tuple[Key, str], tuple[Attached, ...]]:
    """Routes by the listener they are attached to, oldest first.

    A route that names one listener in several parentRefs is attached to it once, with the hostnames of all.
    """
    found: dict[tuple[Key, str], dict[Key, Attached]] = {}
    for route in routes:
        for parent in route.parents:
            for listener, hostnames in parent.listeners:
                here = found.setdefault((parent.owner, listener), {})
                known = here[route.key].hostnames if route.key in here else ()
                here[route.key] = Attached(tuple(sorted({*known, *hostnames})), route.cases, named=route.hostnames)
    return {listener: tuple(routes.values()) for listener, routes in found.items()}


def _listening(gateway: GatewayState, listener: ListenerState, routes: tuple[Attached, ...]) -> Listening:
    return Listening(
        owner=listener.owner,
        name=listener.name,
        port=listener.port,
        hostname=listener.hostname or ANY,
        certificates=listener.certificates if listener.protocol in HTTP_PROTOCOLS else (),
        routes=routes,
        max_body_size=max_body_size(gateway.data_plane.parameters),
        is_elsewhere=listener.protocol not in HTTP_PROTOCOLS,
        client_certificate=gateway.client_certificate,
        client_validation=listener.client_validation,
    )


def _used(servers: tuple[Server, ...]) -> tuple[set[str], set[str]]:
    """Names of the upstreams and of the pools that rules send to."""
    rules = [rule for server in servers for rule in server.rules]
    filters = [
        item for rule in rules for item in (*rule.filters, *(own for part in rule.backends for own in part.filters))
    ]
    targets = [backend.target for rule in rules for backend in rule.backends]
    upstreams = {target.upstream for target in targets if isinstance(target, ToUpstream)}
    mirrors = [item for item in filters if isinstance(item, Mirror)]
    upstreams |= {item.upstream for item in mirrors if item.upstream}
    pools = {target.pool for target in targets if isinstance(target, ToPool)}
    pools |= {item.pool for item in mirrors if item.pool}
    return upstreams, pools
