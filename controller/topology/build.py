"""A topology from a snapshot."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from controller.ir.policies import BackendTls
from controller.plugins.catalogue import BUILT_IN, Catalogue
from controller.plugins.types import AppliedPolicy
from controller.pools import ModelRewrite
from controller.resources.core import ConfigMap
from controller.resources.grpc_route import RequestRoute
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology import pools
from controller.topology.attachment import Parent, parent
from controller.topology.backends import Backends
from controller.topology.base_models import base_models_of
from controller.topology.gateways import class_state, gateway_state
from controller.topology.hostname_conflicts import without_conflicts
from controller.topology.index import Index, Name, index_of
from controller.topology.listener_sets import listener_set_state
from controller.topology.memory import Memory, ResolvedRoute, World
from controller.topology.policies.backend_tls import BackendPolicies, BackendPort, backend_policies
from controller.topology.policies.models import models_of
from controller.topology.policies.objectives import objectives_of
from controller.topology.policies.picker_policy import applied_policy, policies_of
from controller.topology.policies.rewrites import rewrites_of
from controller.topology.routes import route_state
from controller.topology.standing import is_accepted, parents_of
from controller.topology.streams import StreamBackends, stream_route_state
from controller.topology.types import (
    ClassState,
    GatewayState,
    ListenerSetState,
    PoolState,
    RouteState,
    StreamRouteState,
    Topology,
)


def build(
    snapshot: Snapshot,
    *,
    controller_name: str,
    now: datetime | None = None,
    catalogue: Catalogue = BUILT_IN,
    memory: Memory | None = None,
    system_authorities: bytes | None = None,
) -> Topology:
    """What is attached to what, and every condition.

    Only GatewayClasses with `controller_name`, Gateways of these and routes with a parentRef to one of those are
    ours; others are left out. `now`, with a time zone, is when certificates are judged as expired; None judges none.
    `catalogue` has the plugins that a PickerPolicy may name, `system_authorities` the certificates in PEM that a
    BackendTLSPolicy means by `System`. `memory` is that of the builds before.
    """
    index = index_of(snapshot)
    classes = _classes(index, controller_name=controller_name)
    gateways = {
        item.key: gateway_state(item, of=classes[item.spec.gateway_class_name], index=index, now=now)
        for item in index.gateways
        if item.spec.gateway_class_name in classes
    }
    tls_policies = backend_policies(index, system_authorities=system_authorities)
    standings = {name: pools.standing(item, index=index, policies=tls_policies) for name, item in index.pools.items()}
    memory = memory or Memory()
    world = memory.world(
        snapshot,
        (gateways, system_authorities),
        lambda: _world(index, gateways=gateways, standings=standings, policies=tls_policies),
    )
    routes = _routes(index, world=world, memory=memory)
    stream_backends = StreamBackends(index, tls_policies)
    stream_routes = _stream_routes(index, parents=world.parents, backends=stream_backends)
    attached = _attached([*(state for state, _ in routes), *stream_routes])
    policies = policies_of(index, catalogue=catalogue)
    uses = _with_pickers(
        _together(
            world.backends.uses(state for state, _ in routes), stream_backends.uses(stream_routes, gateways=gateways)
        ),
        {item.key: picker for name, item in index.pools.items() if (picker := standings[name].picker)},
    )
    objectives = objectives_of(index)
    rewrites = rewrites_of(index)
    models = models_of(index, rewrites=rewrites.of_pools)
    applied = {
        name: applied_policy(
            policies.applied.get(name),
            objectives=objectives.priorities.get(name, {}),
            models=models.priorities.get(name, {}),
        )
        for name in index.pools
    }
    return Topology(
        classes=tuple(sorted(classes.values(), key=lambda item: item.key)),
        gateways=tuple(_counted(gateways[key], attached=attached) for key in sorted(gateways)),
        routes=tuple(state for state, _ in routes),
        pools=_pools(
            index,
            standings=standings,
            routes=routes,
            applied=applied,
            rewrites=models.rewrites,
            tls_policies=tls_policies,
        ),
        upstreams=world.backends.upstreams(),
        policies=(*tls_policies.states(uses=uses, controller_name=controller_name), *policies.states),
        objectives=objectives.states,
        rewrites=rewrites.states,
        models=models.states,
        base_models=base_models_of(snapshot.of(ConfigMap)),
        stream_routes=stream_routes,
        stream_upstreams=stream_backends.upstreams(),
        listener_sets=_listener_sets(index, gateways=gateways),
    )


def _classes(index: Index, *, controller_name: str) -> dict[str, ClassState]:
    return {
        item.metadata.name: class_state(item, index=index)
        for item in index.classes
        if item.spec.controller_name == controller_name
    }


def _listener_sets(index: Index, *, gateways: Mapping[Key, GatewayState]) -> tuple[ListenerSetState, ...]:
    """ListenerSets that name a Gateway of ours, sorted by key."""
    states = [
        listener_set_state(item, gateway=gateway, state=gateways[gateway.key], index=index)
        for gateway in index.gateways
        if gateway.key in gateways
        for item in index.listener_sets.get(gateway.key, ())
    ]
    return tuple(sorted(states, key=lambda item: item.key))


def _world(
    index: Index,
    *,
    gateways: Mapping[Key, GatewayState],
    standings: Mapping[Name, pools.Standing],
    policies: BackendPolicies,
) -> World:
    namespaces = {item.metadata.namespace for item in (*index.routes, *index.stream_routes)}
    owners = [
        (owner, gateways[item.key])
        for item in index.gateways
        if item.key in gateways
        for owner in (item, *index.listener_sets.get(item.key, ()))
    ]
    return World(
        backends=Backends(index, standings, policies),
        parents={owner.key: parent(owner, state=state, index=index, namespaces=namespaces) for owner, state in owners},
    )


def _routes(index: Index, *, world: World, memory: Memory) -> list[ResolvedRoute]:
    """Routes of ours with the InferencePools that each refers to, sorted by key."""
    found = (
        memory.routes.get(route.key, (route.metadata, route.spec, world), partial(_route, route, world))
        for route in index.routes
    )
    settled = without_conflicts([pair for pair in found if pair is not None])
    # All are of one group; comparing names is seven times faster than comparing keys.
    return sorted(settled, key=lambda pair: (pair[0].key.kind, pair[0].key.namespace, pair[0].key.name))


def _route(route: RequestRoute, world: World) -> ResolvedRoute | None:
    parents = parents_of(route, parents=world.parents)
    world.backends.forget(route.key)
    return route_state(route, parents=parents, backends=world.backends) if parents else None


def _stream_routes(
    index: Index, *, parents: Mapping[Key, Parent], backends: StreamBackends
) -> tuple[StreamRouteState, ...]:
    states = [
        stream_route_state(route, parents=found, backends=backends)
        for route in index.stream_routes
        if (found := parents_of(route, parents=parents))
    ]
    return tuple(sorted(states, key=lambda state: state.key))


def _together(*uses: Mapping[Key, set[BackendPort]]) -> Mapping[Key, set[BackendPort]]:
    return {key: {item for each in uses for item in each.get(key, ())} for each in uses for key in each}


def _with_pickers(
    uses: Mapping[Key, set[BackendPort]], pickers: Mapping[Key, BackendPort]
) -> Mapping[Key, set[BackendPort]]:
    """Who uses a pool uses its picker."""
    return {
        gateway: backends | {pickers[backend] for backend, _ in backends if backend in pickers}
        for gateway, backends in uses.items()
    }


def _attached(routes: Iterable[RouteState | StreamRouteState]) -> Counter[tuple[Key, str]]:
    """Number of accepted routes by listener (owner, name). Source: Gateway API, ListenerStatus.attachedRoutes."""
    return Counter(
        place
        for route in routes
        for place in {
            (standing.owner, listener)
            for standing in route.parents
            if is_accepted(standing)
            for listener, _ in standing.listeners
        }
    )


def _counted(gateway: GatewayState, *, attached: Mapping[tuple[Key, str], int]) -> GatewayState:
    listeners = tuple(
        replace(item, attached_routes=attached.get((item.owner, item.name), 0)) for item in gateway.listeners
    )
    return replace(gateway, listeners=listeners)


def _pools(
    index: Index,
    *,
    standings: Mapping[Name, pools.Standing],
    routes: Iterable[tuple[RouteState, tuple[Key, ...]]],
    applied: Mapping[Name, AppliedPolicy],
    rewrites: Mapping[Name, tuple[ModelRewrite, ...]],
    tls_policies: BackendPolicies,
) -> tuple[PoolState, ...]:
    parents: dict[Key, dict[Key, bool]] = {}
    for route, used in routes:
        for pool in used:
            under = parents.setdefault(pool, {})
            for standing in route.parents:
                under[standing.gateway] = under.get(standing.gateway, False) or is_accepted(standing)
    states = [
        PoolState(
            key=item.key,
            generation=item.metadata.generation,
            pool=pools.pool_of(
                item,
                index=index,
                standing=standings[name],
                policy=applied[name],
                rewrites=rewrites.get(name, ()),
                # Nothing is sent to a pool whose policy has a mistake.
                tls=tls if isinstance(tls := tls_policies.of_pool(item.key), BackendTls) else None,
            ),
            parents=tuple(
                (gateway, standings[name].under(route_is_accepted=one_is))
                for gateway, one_is in sorted(parents.get(item.key, {}).items())
            ),
        )
        for name, item in index.pools.items()
    ]
    return tuple(sorted(states, key=lambda item: item.key))
