"""A route of any kind among the others: how old it is, which parents of ours it has, and its standing with each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC

from controller.resources.gateway_api import ParentReference
from controller.resources.grpc_route import RequestRoute
from controller.resources.meta import Key, Resource
from controller.resources.stream_routes import StreamRoute
from controller.topology.attachment import Attached, Parent, attach
from controller.topology.conditions import Condition, ordered
from controller.topology.types import ParentState


def parents_of(
    route: RequestRoute | StreamRoute, *, parents: Mapping[Key, Parent]
) -> list[tuple[ParentReference, Parent]]:
    """parentRefs to Gateways of ours and to their ListenerSets."""
    found = []
    for reference in route.spec.parent_refs:
        namespace = reference.namespace or route.metadata.namespace
        parent = parents.get(Key(reference.group, reference.kind, namespace, reference.name))
        if parent is not None:
            found.append((reference, parent))
    return found


def standings(
    route: Key,
    *,
    parents: Sequence[tuple[ParentReference, Parent]],
    hostnames: Sequence[str],
    conditions: Callable[[Attached | Condition, Parent], Iterable[Condition | None]],
) -> tuple[ParentState, ...]:
    """What a route is to each of its parents.

    `conditions` says what holds of it there, by the listeners that it is attached to or why there are none. None is
    left out.
    """
    found = []
    for reference, parent in parents:
        attached = attach(route, hostnames=hostnames, parent=reference, doors=parent.doors)
        state = ParentState(
            parent=_as_written(reference),
            owner=parent.key,
            gateway=parent.gateway,
            listeners=() if isinstance(attached, Condition) else attached,
            conditions=ordered(*conditions(attached, parent)),
        )
        found.append(state)
    return tuple(found)


def is_accepted(parent: ParentState) -> bool:
    return any(item.type == "Accepted" and item.status is True for item in parent.conditions)


def age_of(route: Resource) -> str:
    """Sorts routes by age, and then as `namespace/name`. Source: Gateway API, HTTPRouteRule.matches."""
    created = route.metadata.creation_timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{created} {route.key.path}"


def _as_written(parent: ParentReference) -> dict[str, str | int]:
    """A parentRef for a status, with the defaults of group and kind."""
    fields: dict[str, str | int | None] = {
        "group": parent.group,
        "kind": parent.kind,
        "namespace": parent.namespace,
        "name": parent.name,
        "sectionName": parent.section_name,
        "port": parent.port,
    }
    return {name: value for name, value in fields.items() if value is not None}
