"""Backend references of rules, resolved into the targets of a proxy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.ir.types import Target, ToStatus, ToUpstream, Upstream
from controller.resources.core import Service
from controller.resources.gateway_api import BackendObjectReference, HTTPRoute
from controller.resources.grpc_route import GRPCRoute
from controller.resources.meta import Key
from controller.topology import pools, services
from controller.topology.conditions import Condition, unresolved
from controller.topology.grants import permits
from controller.topology.index import POOL_GROUPS, Index, Name, pool_name
from controller.topology.policies.backend_tls import BackendPolicies, BackendPort
from controller.topology.types import RouteState

Found = tuple[Target, Upstream | None]
"""Where a Service's requests go, with its endpoints when it has any."""


@dataclass(frozen=True)
class Backends:
    """Resolves backend references during one build. Many rules share a Service: each port is looked up once."""

    index: Index
    standings: Mapping[Name, pools.Standing]
    """Of every InferencePool."""
    policies: BackendPolicies
    found: dict[tuple[str, str, int, bool], Found | Condition] = field(default_factory=dict)
    """By namespace, name, port, and whether calls of gRPC go there."""
    used: dict[Key, set[BackendPort]] = field(default_factory=dict)
    """What each route was given, by its key."""

    def target(self, reference: BackendObjectReference, *, route: Key) -> Target | Condition:
        """Where requests to a backend go.

        A Service without ready endpoints answers 503. Reasons: InvalidKind, RefNotPermitted, BackendNotFound,
        UnsupportedProtocol, UnsupportedValue. Source: Gateway API, HTTPRouteRule.backendRefs.
        """
        key = backend_key(reference, route=route)
        kinds = _KINDS[route.kind]
        if (key.group, key.kind) not in kinds:
            found = f"{key.kind}.{key.group}" if key.group else key.kind
            accepted = ", ".join(f"{kind}.{group}" if group else kind for group, kind in kinds)
            return unresolved("InvalidKind", f"kind accepts {accepted}, found {found}")
        if not permits(self.index.grants, source=route, target=key):
            message = (
                f"{key} is in another namespace and no ReferenceGrant there permits {route.kind}s of {route.namespace}"
            )
            return unresolved("RefNotPermitted", message)
        if key.kind == "InferencePool":
            self.used.setdefault(route, set()).add((key, 0))
            return self._pool(key)
        self.used.setdefault(route, set()).add((key, reference.port or 0))
        takes_calls = route.kind == GRPCRoute.__name__
        place = (key.namespace, key.name, reference.port or 0, takes_calls)
        if place not in self.found:
            self.found[place] = self._service(key, port=place[2], takes_calls=takes_calls)
        found_here = self.found[place]
        return found_here if isinstance(found_here, Condition) else found_here[0]

    def upstreams(self) -> tuple[Upstream, ...]:
        """Of every Service port that was resolved so far and has endpoints, sorted by name."""
        known = (item[1] for item in self.found.values() if not isinstance(item, Condition))
        return tuple(sorted((item for item in known if item is not None), key=lambda item: item.name))

    def forget(self, route: Key) -> None:
        """A route is resolved again."""
        self.used.pop(route, None)

    def uses(self, routes: Iterable[RouteState]) -> Mapping[Key, set[BackendPort]]:
        """What the Gateways send requests to, by way of the routes that are attached to them."""
        found: dict[Key, set[BackendPort]] = {}
        for route in routes:
            for parent in route.parents:
                if parent.listeners:
                    found.setdefault(parent.gateway, set()).update(self.used.get(route.key, ()))
        return found

    def _pool(self, key: Key) -> Target | Condition:
        """The port of the reference is ignored. Source: Inference Extension, InferencePool."""
        name = pool_name(key)
        item = self.index.pools.get(name)
        if item is None:
            return unresolved("BackendNotFound", f"{key} does not exist")
        tls = self.policies.of_pool(key)
        if isinstance(tls, Condition):
            return _without_policy(key, tls)
        return pools.target(item, standing=self.standings[name], tls=tls)

    def _service(self, key: Key, *, port: int, takes_calls: bool) -> Found | Condition:
        """Calls have upstreams of their own: nginx keeps connections by upstream, whatever is spoken on them."""
        service = self.index.services.get((key.namespace, key.name))
        if service is None:
            return unresolved("BackendNotFound", f"{key} does not exist")
        if not port:
            return unresolved("UnsupportedValue", f"port is missing, a reference to {key} needs one")
        tls = self.policies.of_service(service, port=port)
        protocols = services.protocols(takes_calls=takes_calls, has_tls=tls is not None)
        endpoints = services.endpoints(service, port=port, index=self.index, protocols=protocols)
        if isinstance(endpoints, Condition):
            return endpoints
        if isinstance(tls, Condition):
            return _without_policy(key, tls), None
        if not endpoints:
            return ToStatus(503, f"{key} has no ready endpoint on port {port}"), None
        name = f"{key.path}:{port}/grpc" if takes_calls else f"{key.path}:{port}"
        speaks_http2 = takes_calls or services.speaks_http2(service, port=port)
        return ToUpstream(name), Upstream(name, key, endpoints, speaks_http2=speaks_http2, tls=tls)


_KINDS = {
    HTTPRoute.__name__: ((Service.group, "Service"), *((group, "InferencePool") for group in POOL_GROUPS)),
    # The picker reads prompts from JSON, and there is none in a call.
    GRPCRoute.__name__: ((Service.group, "Service"),),
}
"""(group, kind) of what a route of each kind may refer to."""


def backend_key(reference: BackendObjectReference, *, route: Key) -> Key:
    """What a reference names, in the namespace of its route unless it says another."""
    return Key(reference.group, reference.kind, reference.namespace or route.namespace, reference.name)


def _without_policy(backend: Key, problem: Condition) -> ToStatus:
    """Instead of a backend that must not be spoken to in plain text, and whose policy does not say how else."""
    return ToStatus(500, f"{backend} has a BackendTLSPolicy that is not accepted: {problem.message}")
