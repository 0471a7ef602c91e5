"""The status of every resource of ours, from the topology and what the data planes report.

Times and other controllers' parts come in `merge`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.resources.gateway_api import HTTPRoute, ListenerSet
from controller.resources.grpc_route import GRPCRoute, RequestRoute
from controller.resources.legacy import LEGACY_GROUP
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.resources.stream_routes import StreamRoute
from controller.status.memory import Memory
from controller.status.types import Json, Programmed, StatusUpdate
from controller.status.versions import supported_version
from controller.topology.conditions import (
    ACCEPTED,
    CONFLICTED,
    CONTROLLER,
    PARTIALLY_INVALID,
    PROGRAMMED,
    Condition,
    merged,
    ordered,
    refused,
)
from controller.topology.refusals import Refusals
from controller.topology.types import (
    ClassState,
    GatewayState,
    ListenerSetState,
    ListenerState,
    ModelState,
    ObjectiveState,
    ParentState,
    PolicyState,
    PoolState,
    RewriteState,
    RouteState,
    StreamRouteState,
    Topology,
)

_Listener = tuple[ListenerState, tuple[Condition, ...]]
"""A listener, and its conditions with what the data plane says."""


def derive(
    topology: Topology,
    *,
    snapshot: Snapshot,
    controller_name: str,
    programmed: Mapping[Key, Programmed] | None = None,
    refusals: Refusals | None = None,
    features: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    memory: Memory | None = None,
) -> tuple[StatusUpdate, ...]:
    """The status of each resource of ours, sorted by key.

    `programmed` holds the report for each Gateway whose data plane has said something. Routes that have none of our
    Gateways as a parent, and still an entry of ours in their status, get one without parents. `topology` is as the
    resources say, before `refusals` were taken out. `features` are named by each GatewayClass.
    `versions` are those of the definitions of a cluster, by the plural of their kind; None where there is none.
    `memory` is that of the derivations before.
    """
    memory = memory or Memory()
    memory.turn()
    facts = _Facts(programmed or {}, refusals or Refusals({}, {}, {}), controller_name, memory)
    sets: dict[Key, list[ListenerSetState]] = {}
    for found in topology.listener_sets:
        sets.setdefault(found.gateway, []).append(found)
    version = supported_version(versions)
    updates = [
        *(_class(item, features=features, version=version) for item in topology.classes),
        *(update for item in topology.gateways for update in facts.gateway(item, sets=sets.get(item.key, ()))),
        *(facts.route(item) for item in topology.routes),
        *(facts.route(item) for item in topology.stream_routes),
        *(facts.pool(item) for item in topology.pools),
        *(facts.policy(item) for item in topology.policies),
        *(_alone(item) for item in topology.objectives),
        *(_alone(item) for item in topology.rewrites),
        *(_alone(item) for item in topology.models),
        *memory.abandoned.get(
            "", (topology, snapshot), lambda: _abandoned(topology, snapshot=snapshot, controller_name=controller_name)
        ),
    ]
    return tuple(sorted(updates, key=_order))


def _class(item: ClassState, *, features: Sequence[str], version: Condition | None) -> StatusUpdate:
    status: Json = {"conditions": _json(ordered(*item.conditions, version))}
    if features:
        status["supportedFeatures"] = [{"name": name} for name in features]
    return StatusUpdate(item.key, item.generation, status)


def _alone(item: ModelState | ObjectiveState | RewriteState) -> StatusUpdate:
    return StatusUpdate(item.key, item.generation, {"conditions": _json(item.conditions)})


def _order(update: StatusUpdate) -> tuple[str, ...]:
    key = update.key
    return (key.group, key.kind, key.namespace, key.name)  # seven times faster than comparing keys


@dataclass(frozen=True)
class _Facts:
    """What is known beside the topology."""

    programmed: Mapping[Key, Programmed]
    refusals: Refusals
    controller_name: str
    memory: Memory

    def gateway(self, item: GatewayState, *, sets: Sequence[ListenerSetState]) -> Iterator[StatusUpdate]:
        """Of a Gateway, and of the ListenerSets that name it."""
        report = self.programmed.get(item.key)
        listeners: dict[Key, list[_Listener]] = {
            owner: [(state, self._listener(state, report=report)) for state in states]
            for owner, states in item.by_owner.items()
        }
        programmed = _gateway_programmed(item, report=report, listeners=listeners)
        status: Json = {
            "conditions": _json(ordered(*item.conditions, programmed)),
            "listeners": [_listener_json(*found) for found in listeners.get(item.key, ())],
            "addresses": [{"type": str(a.type), "value": a.value} for a in report.addresses] if report else [],
        }
        if sets:
            # Source: Gateway API, GatewayStatus.attachedListenerSets.
            status["attachedListenerSets"] = sum(_status(found.conditions, ACCEPTED) is True for found in sets)
        yield StatusUpdate(item.key, item.generation, status)
        yield from (_listener_set(found, gateway=programmed, listeners=listeners.get(found.key, ())) for found in sets)

    def _listener(self, item: ListenerState, *, report: Programmed | None) -> tuple[Condition, ...]:
        conditions = item.conditions
        words = self.refusals.listeners.get((item.owner, item.name))
        closed = self.refusals.ports.get(item.opening)
        if not item.serves:
            what = "the listener is not served, see its other conditions and those of the Gateway"
            return ordered(*conditions, Condition(PROGRAMMED, False, _reason_unserved(item), what))
        if words is not None:
            return ordered(*conditions, Condition(PROGRAMMED, False, "Invalid", f"nginx refused the listener: {words}"))
        if closed is not None:
            problem = refused("PortUnavailable", f"port {item.port} cannot be opened: {closed}")
            others = (condition for condition in conditions if condition.type != problem.type)
            return ordered(*others, problem, replace(problem, type=PROGRAMMED, reason="Invalid"))
        return ordered(*conditions, _programmed(report))

    def route(self, item: RouteState | StreamRouteState) -> StatusUpdate:
        words = self.refusals.routes.get(item.key)
        return self.memory.routes.get(item.key, (item, words), lambda: self._route(item, words=words))

    def _route(self, item: RouteState | StreamRouteState, *, words: str | None) -> StatusUpdate:
        parents = [self._parent(parent, words=words) for parent in item.parents]
        return StatusUpdate(item.key, item.generation, {"parents": parents})

    def _parent(self, item: ParentState, *, words: str | None) -> Json:
        conditions = item.conditions
        if words is not None and _status(conditions, ACCEPTED):
            conditions = _with_refusal(conditions, words=words)
        return self._entry(dict(item.parent), conditions)

    def pool(self, item: PoolState) -> StatusUpdate:
        if item.key.group == LEGACY_GROUP:
            entries = [self._legacy_entry(gateway, found) for gateway, found in item.parents]
            return StatusUpdate(item.key, item.generation, {"parent": entries})
        parents = [self._entry(_reference(gateway), found) for gateway, found in item.parents]
        return StatusUpdate(item.key, item.generation, {"parents": parents})

    def policy(self, item: PolicyState) -> StatusUpdate:
        ancestors = [
            {
                "ancestorRef": _reference(target),
                "controllerName": self.controller_name,
                "conditions": _json(conditions),
            }
            for target, conditions in item.ancestors
        ]
        return StatusUpdate(item.key, item.generation, {"ancestors": ancestors})

    def _legacy_entry(self, gateway: Key, conditions: Sequence[Condition]) -> Json:
        """An entry of `status.parent`. Of its reference, the fields that the kind had in all its releases."""
        mine = Condition(CONTROLLER, True, "Controller", self.controller_name)
        reference = {"kind": gateway.kind, "namespace": gateway.namespace, "name": gateway.name}
        return {"parentRef": reference, "conditions": _json(ordered(*conditions, mine))}

    def _entry(self, parent: Json, conditions: Sequence[Condition]) -> Json:
        return {"parentRef": parent, "controllerName": self.controller_name, "conditions": _json(conditions)}


def _reference(key: Key) -> Json:
    return {"group": key.group, "kind": key.kind, "namespace": key.namespace, "name": key.name}


def _programmed(report: Programmed | None) -> Condition:
    if report is None:
        return Condition(PROGRAMMED, None, "Pending", "no data plane has reported yet")
    if not report.serving:
        reason = report.reason if report.reason in ("Pending", "Invalid") else "Pending"
        return Condition(PROGRAMMED, False, reason, report.message)
    return Condition(PROGRAMMED, True, "Programmed")


def _reason_unserved(item: ListenerState) -> str:
    """Of Programmed. The conformance suite wants the conflict's own reason on ListenerSets, and on Gateways none."""
    conflict = next((found for found in item.conditions if found.type == CONFLICTED and found.status), None)
    return conflict.reason if conflict and item.owner.kind == ListenerSet.__name__ else "Invalid"


def _listener_set(item: ListenerSetState, *, gateway: Condition, listeners: Sequence[_Listener]) -> StatusUpdate:
    """`gateway` is the condition Programmed of the Gateway."""
    status: Json = {
        "conditions": _json(ordered(*item.conditions, _set_programmed(item, gateway=gateway, listeners=listeners))),
        "listeners": [_listener_json(*found) for found in listeners],
    }
    return StatusUpdate(item.key, item.generation, status)


def _set_programmed(item: ListenerSetState, *, gateway: Condition, listeners: Sequence[_Listener]) -> Condition:
    """Source: Gateway API, ListenerSetConditionProgrammed."""
    verdict = next(found for found in item.conditions if found.type == ACCEPTED)
    if verdict.status is not True:
        reason = "ParentNotProgrammed" if verdict.reason == "ParentNotAccepted" else verdict.reason
        return Condition(PROGRAMMED, False, reason, verdict.message)
    if gateway.status is None:
        return gateway
    if gateway.status is False:
        return Condition(PROGRAMMED, False, "ParentNotProgrammed", gateway.message)
    failed = _failed(listeners)
    if len(failed) == len(listeners):
        return Condition(PROGRAMMED, False, "ListenersNotValid", "no listener is served, see listeners")
    message = f"listeners that are not served: {', '.join(failed)}" if failed else ""
    return Condition(PROGRAMMED, True, "Programmed", message)


def _failed(listeners: Sequence[_Listener]) -> list[str]:
    return [state.name for state, conditions in listeners if _status(conditions, PROGRAMMED) is False]


def _gateway_programmed(
    item: GatewayState, *, report: Programmed | None, listeners: Mapping[Key, Sequence[_Listener]]
) -> Condition:
    if not item.serves:
        what = (
            "the Gateway is not accepted" if _status(item.conditions, "Accepted") is False else "no listener is served"
        )
        return Condition(PROGRAMMED, False, "Invalid", what)
    if report is None:
        return _programmed(None)
    if not report.serving:
        return Condition(PROGRAMMED, False, report.reason, report.message)
    if all(len(_failed(found)) == len(found) for found in listeners.values()):
        return Condition(PROGRAMMED, False, "Invalid", "no listener is served, see listeners")
    words = [report.message] if report.message else []
    failed = _failed(listeners.get(item.key, ()))
    if failed:
        words.append(f"listeners that are not served: {', '.join(failed)}")
    return Condition(PROGRAMMED, True, "Programmed", "; ".join(words))


def _with_refusal(conditions: Sequence[Condition], *, words: str) -> tuple[Condition, ...]:
    """A route that nginx refused stays accepted, so that what follows it (such as DNS records) stays too."""
    message = f"Dropped Rule: nginx refused the route, whose requests are answered with 500: {words}"
    refusal = Condition(PARTIALLY_INVALID, True, "UnsupportedValue", message)
    earlier = [item for item in conditions if item.type == PARTIALLY_INVALID]
    others = (item for item in conditions if item.type != PARTIALLY_INVALID)
    return ordered(*others, merged([refusal, *earlier]))


def _abandoned(topology: Topology, *, snapshot: Snapshot, controller_name: str) -> tuple[StatusUpdate, ...]:
    """Routes that were ours and are no longer."""
    ours = {item.key for item in topology.routes} | {item.key for item in topology.stream_routes}
    routes: list[RequestRoute | StreamRoute] = [
        *snapshot.of(HTTPRoute),
        *snapshot.of(GRPCRoute),
        *snapshot.of(StreamRoute),
    ]
    return tuple(
        StatusUpdate(route.key, route.metadata.generation, {"parents": []})
        for route in routes
        if route.status
        and any(entry.get("controllerName") == controller_name for entry in route.status.get("parents") or [])
        and route.key not in ours
    )


def _listener_json(item: ListenerState, conditions: Sequence[Condition]) -> Json:
    return {
        "name": item.name,
        "attachedRoutes": item.attached_routes,
        "supportedKinds": [{"group": group, "kind": kind} for group, kind in item.supported_kinds],
        "conditions": _json(conditions),
    }


def _json(conditions: Sequence[Condition]) -> list[Json]:
    words = {True: "True", False: "False", None: "Unknown"}
    return [
        {"type": item.type, "status": words[item.status], "reason": item.reason, "message": item.message}
        for item in conditions
    ]


def _status(conditions: Sequence[Condition], type_: str) -> bool | None:
    return next((item.status for item in conditions if item.type == type_), None)
