"""Listeners on one port whose hostnames overlap, so that a connection of TLS to the one may bring requests for another.

Those of a Gateway are compared with those of its ListenerSets, and HTTPS listeners with TLS ones: clients take up a
connection again for every host that its certificate has. Which resource the other listener is in is told within one
resource alone, as for conflicts.

Source: Gateway API, ListenerConditionOverlappingTLSConfig, and RFC 9113, section 9.1.1.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.topology.attachment import ANY_HOST, covers
from controller.topology.conditions import OVERLAPPING_TLS, Condition, ordered
from controller.topology.types import ListenerState

_PROTOCOLS: Final = ("HTTPS", "TLS")


def with_overlaps(listeners: Sequence[ListenerState]) -> tuple[ListenerState, ...]:
    """The listeners of a Gateway and of its ListenerSets, with the condition where it holds."""
    by_port: dict[int, list[ListenerState]] = defaultdict(list)
    for item in listeners:
        if item.protocol in _PROTOCOLS and _is_accepted(item):
            by_port[item.port].append(item)
    return tuple(_told(item, others=by_port[item.port]) if item in by_port[item.port] else item for item in listeners)


def _told(item: ListenerState, *, others: Sequence[ListenerState]) -> ListenerState:
    found = [other for other in others if other is not item and _overlap(item, other)]
    if not found:
        return item
    names = [other.name for other in found if other.owner == item.owner]
    places = [f"listener {', '.join(names)}"] if names else []
    if len(names) < len(found):
        places.append("a listener of another resource of the Gateway")
    message = f"hostname {_host(item)} overlaps with that of {' and '.join(places)}"
    condition = Condition(OVERLAPPING_TLS, True, "OverlappingHostnames", message)
    return replace(item, conditions=ordered(*item.conditions, condition))


def _overlap(one: ListenerState, other: ListenerState) -> bool:
    """Not where both are passed on: what backends do with connections is theirs."""
    if one.is_passthrough and other.is_passthrough:
        return False
    return covers(_host(one), _host(other)) or covers(_host(other), _host(one))


def _is_accepted(item: ListenerState) -> bool:
    return any(condition.type == "Accepted" and condition.status is True for condition in item.conditions)


def _host(item: ListenerState) -> str:
    return item.hostname or ANY_HOST
