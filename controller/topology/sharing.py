"""What changes when all Gateways share one nginx and its addresses, as on one machine."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from controller.ir.streams import Opening
from controller.resources.gateway_api import Gateway
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology.conditions import CONFLICTED, IGNORED_FIELDS, Condition, elsewhere, merged, ordered, refused
from controller.topology.listener_sets import judged_again
from controller.topology.parameters import EVERYWHERE, fields_given
from controller.topology.protocols import family_of
from controller.topology.types import DataPlaneState, GatewayState, ListenerState, Topology


def shared(topology: Topology, *, snapshot: Snapshot) -> Topology:
    """The topology in which no two Gateways claim the same host on a port, or two protocols on it: the oldest wins.

    Listeners of one Gateway that conflict are out already. What a Gateway says of a data plane of its own has no
    effect, and the condition `infergate.dev/IgnoredFields` names it.
    """
    protocols: dict[Opening, tuple[Key, str]] = {}
    claims: dict[tuple[Opening, str | None], Key] = {}
    lost: dict[tuple[Key, str], Condition] = {}
    ages = [item.key for item in snapshot.of(Gateway)]
    for gateway in sorted(topology.gateways, key=lambda item: ages.index(item.key)):
        for listener in (item for item in gateway.listeners if item.serves):
            place = (listener.owner, listener.name)
            owner, protocol = protocols.setdefault(listener.opening, (gateway.key, listener.protocol))
            holder = claims.setdefault((listener.opening, listener.hostname), gateway.key)
            if family_of(protocol) != family_of(listener.protocol):
                message = f"port {listener.port} speaks {protocol} for {owner}, which is older"
                lost[place] = Condition(CONFLICTED, True, "ProtocolConflict", message)
            elif holder != gateway.key:
                message = (
                    f"port {listener.port} with hostname {listener.hostname or '*'} belongs to {holder}, which is older"
                )
                lost[place] = Condition(CONFLICTED, True, "HostnameConflict", message)
    gateways = {
        gateway.key: replace(
            _without_data_plane(gateway), listeners=tuple(_judged(item, lost) for item in gateway.listeners)
        )
        for gateway in topology.gateways
    }
    return replace(
        topology,
        gateways=tuple(gateways.values()),
        listener_sets=tuple(judged_again(item, gateway=gateways[item.gateway]) for item in topology.listener_sets),
    )


def _without_data_plane(gateway: GatewayState) -> GatewayState:
    """The Gateway, with what it says of a data plane of its own named as ignored."""
    ignored = elsewhere(_without_effect(gateway.data_plane))
    if ignored is None:
        return gateway
    others = [item for item in gateway.conditions if item.type != IGNORED_FIELDS]
    earlier = [item for item in gateway.conditions if item.type == IGNORED_FIELDS]
    return replace(gateway, conditions=ordered(*others, merged([*earlier, ignored])))


def _without_effect(found: DataPlaneState) -> Iterator[str]:
    if found.labels:
        yield "infrastructure.labels"
    if found.annotations:
        yield "infrastructure.annotations"
    for field in fields_given(found.parameters):
        if field not in EVERYWHERE:
            yield f"GatewayParameters {field}"


def _judged(listener: ListenerState, lost: Mapping[tuple[Key, str], Condition]) -> ListenerState:
    conflict = lost.get((listener.owner, listener.name))
    if conflict is None:
        return listener
    others = (item for item in listener.conditions if item.type not in (CONFLICTED, "Accepted"))
    conditions = ordered(*others, conflict, refused(conflict.reason, conflict.message))
    return replace(listener, conditions=conditions, serves=False)
