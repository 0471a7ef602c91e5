"""What changes when all Gateways share one nginx and its addresses, as on one machine."""

from collections.abc import Mapping
from dataclasses import replace

from controller.resources.gateway_api import Gateway
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology.conditions import CONFLICTED, Condition, ordered, refused
from controller.topology.types import ListenerState, Topology


def shared(topology: Topology, *, snapshot: Snapshot) -> Topology:
    """The topology in which no two Gateways claim the same host on a port, or two protocols on it: the oldest wins.

    Listeners of one Gateway that conflict are out already.
    """
    protocols: dict[int, tuple[Key, str]] = {}
    claims: dict[tuple[int, str | None], Key] = {}
    lost: dict[tuple[Key, str], Condition] = {}
    ages = [item.key for item in snapshot.of(Gateway)]
    for gateway in sorted(topology.gateways, key=lambda item: ages.index(item.key)):
        for listener in (item for item in gateway.listeners if item.serves):
            owner, protocol = protocols.setdefault(listener.port, (gateway.key, listener.protocol))
            holder = claims.setdefault((listener.port, listener.hostname), gateway.key)
            if protocol != listener.protocol:
                message = f"port {listener.port} speaks {protocol} for {owner}, which is older"
                lost[gateway.key, listener.name] = Condition(CONFLICTED, True, "ProtocolConflict", message)
            elif holder != gateway.key:
                message = (
                    f"port {listener.port} with hostname {listener.hostname or '*'} belongs to {holder}, which is older"
                )
                lost[gateway.key, listener.name] = Condition(CONFLICTED, True, "HostnameConflict", message)
    if not lost:
        return topology
    return replace(
        topology,
        gateways=tuple(
            replace(gateway, listeners=tuple(_judged(gateway.key, item, lost) for item in gateway.listeners))
            for gateway in topology.gateways
        ),
    )


def _judged(gateway: Key, listener: ListenerState, lost: Mapping[tuple[Key, str], Condition]) -> ListenerState:
    conflict = lost.get((gateway, listener.name))
    if conflict is None:
        return listener
    others = (item for item in listener.conditions if item.type not in (CONFLICTED, "Accepted"))
    conditions = ordered(*others, conflict, refused(conflict.reason, conflict.message))
    return replace(listener, conditions=conditions, serves=False)
