"""Decides which listener, and which route on it, has the connections for each hostname on a port."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.ir.certificates import Certificate
from controller.ir.hostnames import ANY, covering
from controller.ir.streams import Mode, Opening, StreamRule, StreamServer
from controller.resources.meta import Key
from controller.topology.protocols import family_of
from controller.topology.types import GatewayState, ListenerState, StreamRouteState, Topology

HTTP_PROTOCOLS = ("HTTP", "HTTPS")
"""Protocols whose listeners read requests. Those of others pass connections on."""


@dataclass(frozen=True)
class _Listening:
    """A listener with the routes that are attached to it."""

    listener: ListenerState
    routes: tuple[tuple[tuple[str, ...], StreamRule], ...]
    """(hostnames on which the route is reachable there, rule), oldest first."""

    @property
    def hostname(self) -> str:
        return self.listener.hostname or ANY

    @property
    def mode(self) -> Mode:
        if family_of(self.listener.protocol) != "TLS":
            return Mode.OPAQUE
        return Mode.PASSTHROUGH if self.listener.is_passthrough else Mode.TERMINATE

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        return self.listener.certificates if self.mode is Mode.TERMINATE else ()


def streams_of(topology: Topology, *, gateways: Collection[Key]) -> tuple[StreamServer, ...]:
    """What becomes of connections on the listeners of some Gateways.

    A host belongs to the most specific listener of its port that covers it, be it one of HTTPS, and to no other; of
    equals the first. On it, the route with the most specific hostname has the connections; of equals the oldest.

    Source: Gateway API, GatewaySpec.listeners, and guidelines on conflicts for routes that match alike.
    """
    routes = _attached(sorted(topology.stream_routes, key=lambda route: route.created))
    by_opening: dict[Opening, list[_Listening]] = {}
    for gateway, listener in serving(topology, gateways=gateways):
        here = routes.get((listener.owner, listener.name), ())
        rules = tuple((hostnames, _rule(route, listener=listener, gateway=gateway)) for hostnames, route in here)
        place = _Listening(listener, rules)
        by_opening.setdefault(listener.opening, []).append(place)
    found = [server for listeners in by_opening.values() for server in _servers_on(listeners)]
    return tuple(sorted(found, key=lambda item: (item.port, item.transport, item.mode, item.hostnames)))


def serving(topology: Topology, *, gateways: Collection[Key]) -> Iterable[tuple[GatewayState, ListenerState]]:
    """Listeners of some Gateways that serve."""
    for gateway in topology.gateways:
        if gateway.key in gateways and gateway.serves:
            yield from ((gateway, listener) for listener in gateway.listeners if listener.serves)


def shares_a_port(listener: ListenerState, *, others: Iterable[ListenerState]) -> bool:
    """Whether a listener that passes connections on shares its port with one that reads requests."""
    return any(other.protocol in HTTP_PROTOCOLS and other.opening == listener.opening for other in others)


def _rule(route: StreamRouteState, *, listener: ListenerState, gateway: GatewayState) -> StreamRule:
    if not listener.ends_tls:
        return route.rule
    if not route.ending.is_secured:
        return route.ending
    return replace(route.ending, client_certificate=gateway.client_certificate)


def _attached(
    routes: Iterable[StreamRouteState],
) -> dict[tuple[Key, str], list[tuple[tuple[str, ...], StreamRouteState]]]:
    found: dict[tuple[Key, str], list[tuple[tuple[str, ...], StreamRouteState]]] = {}
    for route in routes:
        for parent in route.parents:
            for listener, hostnames in parent.listeners:
                found.setdefault((parent.owner, listener), []).append((hostnames, route))
    return found


def _servers_on(listeners: Sequence[_Listening]) -> Iterable[StreamServer]:
    if all(item.listener.protocol in HTTP_PROTOCOLS for item in listeners):
        return
    owners = {item.hostname: item for item in reversed(listeners)}
    alike: dict[tuple[str, str], tuple[StreamRule | None, list[str]]] = {}
    for hostname in sorted({*owners, *(name for item in listeners for names, _ in item.routes for name in names)}):
        owner = next((pattern for pattern in covering(hostname) if pattern in owners), None)
        if owner is None or owners[owner].listener.protocol in HTTP_PROTOCOLS:
            continue
        rule = _rule_for(hostname, owners[owner].routes)
        alike.setdefault((owner, rule.id if rule else ""), (rule, []))[1].append(hostname)
    for (owner, _), (rule, hostnames) in alike.items():
        place = owners[owner]
        yield StreamServer(
            owner=place.listener.owner,
            listener=place.listener.name,
            port=place.listener.port,
            transport=place.listener.opening.transport,
            mode=place.mode,
            hostnames=tuple(hostnames),
            certificates=place.certificates if rule else (),
            rule=rule,
        )


def _rule_for(hostname: str, routes: Sequence[tuple[tuple[str, ...], StreamRule]]) -> StreamRule | None:
    """The rule with the most specific pattern that covers a hostname; of equals the first."""
    by_pattern: Mapping[str, StreamRule] = {name: rule for names, rule in reversed(routes) for name in names}
    return next((by_pattern[pattern] for pattern in covering(hostname) if pattern in by_pattern), None)


def upstreams_of(servers: Iterable[StreamServer]) -> set[str]:
    """Names of the upstreams that connections go to."""
    rules = (server.rule for server in servers if server.rule is not None)
    return {backend.upstream for rule in rules for backend in rule.backends if backend.upstream and backend.weight}
