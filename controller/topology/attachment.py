"""Which listeners of a parent a route is attached to, and on which hostnames."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controller.resources.gateway_api import GROUP, Gateway, Listener, ListenerSet, ParentReference
from controller.resources.meta import Key
from controller.topology.conditions import Condition, refused
from controller.topology.index import Index, selects
from controller.topology.types import GatewayState, ListenerState

ANY_HOST = "*"

Attached = tuple[tuple[str, tuple[str, ...]], ...]
"""(listener, hostnames), in the order of the parent."""


@dataclass(frozen=True)
class Door:
    """What a listener lets in."""

    state: ListenerState
    namespaces: frozenset[str]
    """Among those that have routes."""
    kinds: frozenset[str]
    """Of routes of the Gateway API."""


@dataclass(frozen=True)
class Parent:
    """What routes may name as their parent: a Gateway of ours, or a ListenerSet that names one."""

    key: Key
    gateway: Key
    doors: tuple[Door, ...]
    """One per listener, in the order of the resource. None for a ListenerSet that is not let in."""


def parent(owner: Gateway | ListenerSet, *, state: GatewayState, index: Index, namespaces: Collection[str]) -> Parent:
    """A Gateway, or a ListenerSet that names it, with what its listeners let in. `namespaces` have routes."""
    states = state.by_owner.get(owner.key, ())
    doors = tuple(
        Door(
            state=listener_state,
            namespaces=_admitted(listener, owner=owner, index=index, namespaces=namespaces),
            kinds=frozenset(kind for group, kind in listener_state.supported_kinds if group == GROUP),
        )
        for listener, listener_state in zip(owner.spec.listeners if states else (), states, strict=True)
    )
    return Parent(key=owner.key, gateway=state.key, doors=doors)


def _admitted(
    listener: Listener, *, owner: Gateway | ListenerSet, index: Index, namespaces: Collection[str]
) -> frozenset[str]:
    allowed = listener.allowed_routes.namespaces
    if allowed.from_ == "All":
        return frozenset(namespaces)
    if allowed.from_ == "Same":
        return frozenset({owner.metadata.namespace})
    if allowed.selector is None:
        return frozenset()
    selector = allowed.selector
    return frozenset(name for name in namespaces if selects(selector, index.namespace_labels(name)))


def attach(
    route: Key, *, hostnames: Sequence[str], parent: ParentReference, doors: Sequence[Door]
) -> Attached | Condition:
    """Listeners that accept a route with hostnames through one of its parentRefs.

    Reasons: NoMatchingParent, NotAllowedByListeners, NoMatchingListenerHostname.
    Source: Gateway API, ParentReference and HTTPRouteSpec.hostnames.
    """
    named = [
        door
        for door in doors
        if parent.section_name in (None, door.state.name) and parent.port in (None, door.state.port)
    ]
    if not named:
        what = f"has no listener with {_section(parent)}" if doors else "is not let in by its Gateway"
        return refused("NoMatchingParent", f"the {parent.kind} {what}")
    allowing = [door for door in named if route.kind in door.kinds and route.namespace in door.namespaces]
    if not allowing:
        names = ", ".join(door.state.name for door in named)
        message = f"allowedRoutes or protocol of listener {names} admits no {route.kind} of namespace {route.namespace}"
        return refused("NotAllowedByListeners", message)
    attached = tuple(
        (door.state.name, found) for door in allowing if (found := intersect(door.state.hostname, hostnames))
    )
    if not attached:
        hosts = ", ".join(sorted({door.state.hostname or ANY_HOST for door in allowing}))
        message = f"found hostnames {', '.join(hostnames)}, the listeners accept {hosts}"
        return refused("NoMatchingListenerHostname", message)
    return attached


def intersect(listener: str | None, route: Sequence[str]) -> tuple[str, ...]:
    """Hostnames on which a route is reachable through a listener.

    A leading `*.` covers one or more labels. A listener of None and a route without hostnames accept any host, `*`.
    Returns the more specific of each matching pair, lower-case and sorted; empty when nothing matches.

    Source: Gateway API, HTTPRouteSpec.hostnames.
    """
    own = listener.lower() if listener else ANY_HOST
    hostnames = own_hostnames(route)
    found = {name if covers(own, name) else own for name in hostnames if covers(own, name) or covers(name, own)}
    return tuple(sorted(found))


def own_hostnames(route: Sequence[str]) -> tuple[str, ...]:
    """Hostnames of a route as it names them, lower-case and sorted; `*` for one that names none."""
    return tuple(sorted({name.lower() for name in route})) or (ANY_HOST,)


def covers(pattern: str, hostname: str) -> bool:
    """Whether every host of `hostname` is one of `pattern`, both lower-case and maybe with a wildcard."""
    if pattern in (hostname, ANY_HOST):
        return True
    return pattern.startswith("*.") and hostname.endswith(pattern[1:]) and len(hostname) > len(pattern) - 1


def _section(parent: ParentReference) -> str:
    wanted = [f"name {parent.section_name}"] if parent.section_name is not None else []
    if parent.port is not None:
        wanted.append(f"port {parent.port}")
    return " and ".join(wanted) or "any name"
