"""Decides which listener, and which cases in which order, answer for each hostname on a port."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.ir.hostnames import covering
from controller.ir.policies import ClientValidation
from controller.ir.types import Case, Certificate, Server
from controller.resources.meta import Key
from controller.translate.locations import locations_of
from controller.translate.precedence import precedence


@dataclass(frozen=True)
class Listening:
    """A listener with the routes that are attached to it."""

    owner: Key
    """The Gateway or ListenerSet that has it."""
    name: str
    port: int
    hostname: str
    """`*` for any."""
    certificates: tuple[Certificate, ...]
    routes: tuple["Attached", ...]
    """Oldest first."""
    max_body_size: int | None = None
    """As in the server's."""
    is_elsewhere: bool = False
    """Whether connections for its hostnames are passed on instead of read."""
    client_certificate: Certificate | None = None
    """As in the server's."""
    client_validation: ClientValidation | None = None
    """As above."""


@dataclass(frozen=True)
class Attached:
    """A route on one listener."""

    hostnames: tuple[str, ...]
    """Those on which the route is reachable there; `*` is any."""
    cases: tuple[Case, ...]
    named: tuple[str, ...]
    """Those that the route names itself, by which it comes before or behind others; `*` where it names none."""


def servers_of(listeners: Sequence[Listening]) -> tuple[Server, ...]:
    """Servers of all ports, sorted by port and hostnames.

    A host belongs to the most specific listener of its port that covers it, and to no other; of equals the first
    given. Hostnames that are served alike share a server.

    Source: Gateway API, Listener.hostname (listener isolation).
    """
    servers: list[Server] = []
    for port in sorted({listener.port for listener in listeners}):
        servers += _servers_on([listener for listener in listeners if listener.port == port])
    return tuple(sorted(servers, key=lambda server: (server.port, server.hostnames)))


def _servers_on(listeners: Sequence[Listening]) -> Iterable[Server]:
    owners = {listener.hostname: listener for listener in reversed(listeners)}
    routes = {listener.hostname: _routes_by_pattern(listener.routes) for listener in owners.values()}
    alike: dict[tuple[str, tuple[tuple[int, ...], ...]], list[str]] = {}
    for hostname in _hostnames(listeners):
        owner = next((pattern for pattern in covering(hostname) if pattern in owners), None)
        if owner is not None:
            alike.setdefault((owner, _groups(hostname, routes[owner])), []).append(hostname)
    for (owner, groups), hostnames in alike.items():
        listener = owners[owner]
        cases = [case for group in groups for case in _ordered(listener.routes[index].cases for index in group)]
        locations = locations_of(cases)
        rules = {case.rule.id: case.rule for location in locations for case in location.cases}
        yield Server(
            owner=listener.owner,
            listener=listener.name,
            port=listener.port,
            hostnames=tuple(sorted(hostnames)),
            certificates=listener.certificates,
            locations=locations,
            rules=tuple(rules[name] for name in sorted(rules)),
            max_body_size=listener.max_body_size,
            is_elsewhere=listener.is_elsewhere,
            client_certificate=listener.client_certificate,
            client_validation=listener.client_validation,
        )


def _hostnames(listeners: Sequence[Listening]) -> list[str]:
    own = {listener.hostname for listener in listeners}
    routed = {name for listener in listeners for route in listener.routes for name in route.hostnames}
    return sorted(own | routed)


def _routes_by_pattern(routes: Sequence[Attached]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, route in enumerate(routes):
        for hostname in route.named:
            found.setdefault(hostname, []).append(index)
    return found


def _groups(hostname: str, routes: Mapping[str, Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Positions of the routes that serve a hostname, grouped by their most specific pattern, each group oldest first.

    A host's own routes are asked before those of its wildcard, whatever their paths, and also where the listener has no
    other host. Source: Gateway API, HTTPRouteSpec.hostnames.
    """
    seen: set[int] = set()
    groups: list[tuple[int, ...]] = []
    for pattern in covering(hostname):
        group = tuple(index for index in routes.get(pattern, ()) if index not in seen)
        seen.update(group)
        if group:
            groups.append(group)
    return tuple(groups)


def _ordered(routes: Iterable[Sequence[Case]]) -> list[Case]:
    """Cases of routes, which are given oldest first, in order of precedence. The sort keeps what is equal in order."""
    return sorted((case for cases in routes for case in cases), key=lambda case: precedence(case.match))
