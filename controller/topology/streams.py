"""TLSRoutes, TCPRoutes and UDPRoutes: their backends, resolved once, and their standing with each parent.

A backend that does not resolve, or has no endpoint, keeps its share, whose connections are closed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.ir.streams import StreamBackend, StreamRule, Transport
from controller.ir.types import Upstream
from controller.resources.core import Service
from controller.resources.gateway_api import ParentReference
from controller.resources.meta import Key
from controller.resources.stream_routes import BackendRef, StreamRoute, TLSRoute, UDPRoute
from controller.topology import services
from controller.topology.attachment import Attached, Parent
from controller.topology.backends import backend_key
from controller.topology.conditions import (
    Condition,
    accepted,
    ignored,
    merged,
    resolved_refs,
    unresolved,
)
from controller.topology.grants import permits
from controller.topology.index import Index
from controller.topology.policies.backend_tls import BackendPolicies, BackendPort
from controller.topology.standing import age_of, standings
from controller.topology.types import GatewayState, StreamRouteState
from controller.topology.unsupported import Scope, fields_set

_Place = tuple[str, str, int, Transport]
"""Namespace, name and port of a Service."""


@dataclass(frozen=True)
class StreamBackends:
    """Resolves backend references during one build. Many rules share a Service: each port is looked up once."""

    index: Index
    policies: BackendPolicies
    found: dict[_Place, Upstream | Condition | None] = field(default_factory=dict)
    """None: without a ready endpoint."""
    used: dict[Key, set[BackendPort]] = field(default_factory=dict)
    """What each route was given, by its key."""

    def upstream(self, reference: BackendRef, *, route: Key, transport: Transport) -> Upstream | Condition | None:
        """Where connections to a backend go; None when it has no ready endpoint.

        Reasons: InvalidKind, RefNotPermitted, BackendNotFound, UnsupportedProtocol, UnsupportedValue. An InferencePool
        is none: a model server is chosen by what is asked of it, which nobody reads here.
        Source: Gateway API, TCPRouteRule.backendRefs.
        """
        key = backend_key(reference, route=route)
        if (key.group, key.kind) != (Service.group, "Service"):
            kind = f"{key.kind}.{key.group}" if key.group else key.kind
            return unresolved("InvalidKind", f"kind of a {route.kind}'s backend accepts Service, found {kind}")
        if not permits(self.index.grants, source=route, target=key):
            where = f"{route.kind}s of {route.namespace}"
            return unresolved(
                "RefNotPermitted", f"{key} is in another namespace and no ReferenceGrant there permits {where}"
            )
        self.used.setdefault(route, set()).add((key, reference.port or 0))
        place = (key.namespace, key.name, reference.port or 0, transport)
        if place not in self.found:
            self.found[place] = self._service(key, port=place[2], transport=transport)
        return self.found[place]

    def secured(self, backend: StreamBackend, reference: BackendRef, *, route: Key) -> StreamBackend:
        """The backend of connections whose TLS ended here: in TLS of its own where a BackendTLSPolicy says so.

        Nothing goes to one whose policy is not accepted, or has names that NGINX does not compare: the dialer is for
        requests. Source: Gateway API, TLSRouteRule.backendRefs.
        """
        key = backend_key(reference, route=route)
        service = self.index.services.get((key.namespace, key.name))
        if not backend.upstream or service is None:
            return backend
        tls = self.policies.of_service(service, port=reference.port or 0)
        if isinstance(tls, Condition) or (tls is not None and tls.names):
            return replace(backend, upstream="")
        return replace(backend, tls=tls)

    def unsecured(self, reference: BackendRef, *, route: Key) -> Condition | None:
        """Why no connection whose TLS ended here goes to a backend that resolves, although its policy is accepted."""
        key = backend_key(reference, route=route)
        service = self.index.services.get((key.namespace, key.name))
        tls = self.policies.of_service(service, port=reference.port or 0) if service is not None else None
        if tls is None or isinstance(tls, Condition) or not tls.names:
            return None
        return unresolved(
            "UnsupportedValue",
            f"{tls.source} has subjectAltNames, for connections it accepts none but its hostname {tls.hostname}",
        )

    def uses(
        self, routes: Iterable[StreamRouteState], *, gateways: Mapping[Key, GatewayState]
    ) -> Mapping[Key, set[BackendPort]]:
        """What the Gateways send connections to whose TLS ended there."""
        ending = {
            (listener.owner, listener.name)
            for gateway in gateways.values()
            for listener in gateway.listeners
            if listener.ends_tls
        }
        found: dict[Key, set[BackendPort]] = {}
        for route in routes:
            for parent in route.parents:
                if any((parent.owner, name) in ending for name, _ in parent.listeners):
                    found.setdefault(parent.gateway, set()).update(self.used.get(route.key, ()))
        return found

    def upstreams(self) -> tuple[Upstream, ...]:
        """Of every Service port that was resolved so far and has endpoints, sorted by name."""
        return tuple(
            sorted((item for item in self.found.values() if isinstance(item, Upstream)), key=lambda item: item.name)
        )

    def _service(self, key: Key, *, port: int, transport: Transport) -> Upstream | Condition | None:
        service = self.index.services.get((key.namespace, key.name))
        if service is None:
            return unresolved("BackendNotFound", f"{key} does not exist")
        endpoints = services.endpoints(service, port=port, index=self.index, transport=transport, protocols=None)
        if isinstance(endpoints, Condition):
            return endpoints
        name = f"{key.path}:{port}" if transport is Transport.TCP else f"{key.path}:{port}/udp"
        return Upstream(name=name, source=key, endpoints=endpoints) if endpoints else None


def stream_route_state(
    route: StreamRoute,
    *,
    parents: Sequence[tuple[ParentReference, Parent]],
    backends: StreamBackends,
) -> StreamRouteState:
    """A route with a parent of ours. Of several rules, which older versions have, the first takes every connection."""
    key = route.key
    first, *others = route.spec.rules
    transport = Transport.UDP if isinstance(route, UDPRoute) else Transport.TCP
    found = [backends.upstream(item, route=key, transport=transport) for item in first.backend_refs]
    refs = [
        unresolved(item.reason, f"rules[0].backendRefs[{position}]: {item.message}")
        for position, item in enumerate(found)
        if isinstance(item, Condition)
    ]
    unsecured = [
        unresolved(problem.reason, f"rules[0].backendRefs[{position}]: {problem.message}")
        for position, (item, reference) in enumerate(zip(found, first.backend_refs, strict=True))
        if not isinstance(item, Condition)
        if (problem := backends.unsecured(reference, route=key)) is not None
    ]
    without_effect = ignored(
        [f"rules[{number + 1}]" for number in range(len(others))]
        + [row.path for row in fields_set(route.spec, scope=Scope.ROUTE)]
    )
    hostnames = route.spec.hostnames if isinstance(route, TLSRoute) else ()
    plain = tuple(
        StreamBackend(upstream=item.name if isinstance(item, Upstream) else "", weight=reference.weight)
        for item, reference in zip(found, first.backend_refs, strict=True)
    )
    secured = tuple(
        backends.secured(item, reference, route=key) for item, reference in zip(plain, first.backend_refs, strict=True)
    )
    rule = StreamRule(route=key, index=0, backends=plain)
    return StreamRouteState(
        key=key,
        generation=route.metadata.generation,
        parents=standings(
            key,
            parents=parents,
            hostnames=hostnames,
            conditions=lambda attached, parent: (
                _resolved([*refs, *unsecured] if _ends_tls(attached, parent=parent) else refs),
                without_effect,
                attached if isinstance(attached, Condition) else accepted(),
            ),
        ),
        rule=rule,
        ending=rule if secured == plain else replace(rule, backends=secured, is_secured=True),
        created=age_of(route),
    )


def _resolved(problems: Sequence[Condition]) -> Condition:
    return merged(problems) if problems else resolved_refs()


def _ends_tls(attached: Attached | Condition, *, parent: Parent) -> bool:
    """Whether a listener that has the route decrypts its connections."""
    if isinstance(attached, Condition):
        return False
    names = {name for name, _ in attached}
    return any(door.state.ends_tls for door in parent.doors if door.state.name in names)
