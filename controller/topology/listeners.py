"""Listeners of a Gateway or of a ListenerSet: what each one takes, needs and has, and which of them conflict.

Listeners of one resource that conflict are all refused: none of them wins.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.ir.streams import Opening
from controller.ir.types import Certificate
from controller.resources.gateway_api import GROUP, Gateway, Listener, ListenerSet
from controller.topology import certificates
from controller.topology.attachment import ANY_HOST
from controller.topology.client_certificates import Frontend, frontend_of
from controller.topology.conditions import (
    CONFLICTED,
    Condition,
    accepted,
    merged,
    no_conflicts,
    ordered,
    refused,
    resolved_refs,
    unresolved,
    unsupported,
)
from controller.topology.index import Index
from controller.topology.protocols import (
    PROTOCOLS,
    family_of,
    is_passthrough,
    kinds_of,
    needs_certificates,
    opening_of,
)
from controller.topology.types import ListenerState
from controller.topology.unsupported import Effect, Scope, fields_set


@dataclass
class Claims:
    """What the listeners of earlier resources have."""

    families: dict[Opening, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Of protocols."""
    hostnames: set[tuple[Opening, str]] = field(default_factory=set)

    def add(self, listener: Listener) -> None:
        self.families[_opening(listener)].add(family_of(listener.protocol))
        self.hostnames.add((_opening(listener), _host(listener)))

    def conflict(self, listener: Listener) -> Condition | None:
        """The Conflicted condition of a listener that wants what another resource has.

        Does not say whose it is: who may read the one resource may not be allowed to read the other.
        """
        if self.families.get(_opening(listener), set()) - {family_of(listener.protocol)}:
            message = f"port {listener.port} has another protocol in the Gateway or in an older ListenerSet"
            return Condition(CONFLICTED, True, "ProtocolConflict", message)
        if (_opening(listener), _host(listener)) in self.hostnames:
            message = (
                f"port {listener.port} with hostname {_host(listener)} is in the Gateway or in an older ListenerSet"
            )
            return Condition(CONFLICTED, True, "HostnameConflict", message)
        return None


def listener_states(
    owner: Gateway | ListenerSet, *, gateway: Gateway, claims: Claims, index: Index, now: datetime | None
) -> tuple[ListenerState, ...]:
    """Listeners of a Gateway or of a ListenerSet. Adds what they have to the claims."""
    listeners = owner.spec.listeners
    taken = {item.name: claims.conflict(item) for item in listeners}
    left = [item for item in listeners if taken[item.name] is None]
    conflicts = _conflicts(left)
    states = tuple(
        _listener_state(
            item,
            owner=owner,
            gateway=gateway,
            conflict=taken[item.name] or conflicts.get(item.name),
            index=index,
            now=now,
        )
        for item in listeners
    )
    for item in left:
        if item.protocol in PROTOCOLS and item.name not in conflicts:
            claims.add(item)
    return states


def _listener_state(
    listener: Listener,
    *,
    owner: Gateway | ListenerSet,
    gateway: Gateway,
    conflict: Condition | None,
    index: Index,
    now: datetime | None,
) -> ListenerState:
    kinds, refs = _kinds(listener)
    pairs: list[certificates.Resolved] = []
    if needs_certificates(listener):
        pairs, more = _certificates(listener, owner=owner, index=index)
        refs += more
    frontend = Frontend()
    if listener.protocol == "HTTPS":
        frontend = frontend_of(gateway, port=listener.port, index=index)
        refs += frontend.unresolved
    problem = refused(conflict.reason, conflict.message) if conflict is not None else None
    problem = problem or _listener_problem(listener) or frontend.problem
    served = tuple(item.certificate for item in pairs)
    return ListenerState(
        owner=owner.key,
        name=listener.name,
        port=listener.port,
        protocol=listener.protocol,
        hostname=listener.hostname.lower() if listener.hostname else None,
        certificates=served,
        supported_kinds=kinds,
        conditions=ordered(
            problem or accepted(),
            conflict or no_conflicts(),
            merged(refs) if refs else resolved_refs(certificates.warning(pairs, now=now)),
        ),
        attached_routes=0,
        serves=problem is None and bool(kinds) and bool(served or not needs_certificates(listener)),
        is_passthrough=is_passthrough(listener),
        client_validation=frontend.validation,
    )


def _kinds(listener: Listener) -> tuple[tuple[tuple[str, str], ...], list[Condition]]:
    """Kinds of routes that may attach, and what is wrong with those that the listener names."""
    known = tuple((GROUP, kind) for kind in kinds_of(listener))
    wanted = tuple(dict.fromkeys((item.group, item.kind) for item in listener.allowed_routes.kinds))
    if not wanted:
        return known, []
    unknown = [f"{kind}.{group}" for group, kind in wanted if (group, kind) not in known]
    if not unknown:
        return wanted, []
    accepts = ", ".join(kind for _, kind in known) or "none"
    message = f"allowedRoutes.kinds on protocol {listener.protocol} accepts {accepts}, found {', '.join(unknown)}"
    return tuple(kind for kind in wanted if kind in known), [unresolved("InvalidRouteKinds", message)]


def _certificates(
    listener: Listener, *, owner: Gateway | ListenerSet, index: Index
) -> tuple[list[certificates.Resolved], list[Condition]]:
    references = listener.tls.certificate_refs if listener.tls else ()
    if not references:
        return [], [
            unresolved("InvalidCertificateRef", f"tls.certificateRefs is empty, protocol {listener.protocol} needs one")
        ]
    found = [certificates.certificate(item, owner=owner, index=index) for item in references]
    good: dict[Certificate, certificates.Resolved] = {}
    for item in found:
        if not isinstance(item, Condition):
            good.setdefault(item.certificate, item)
    return list(good.values()), [item for item in found if isinstance(item, Condition)]


def _listener_problem(listener: Listener) -> Condition | None:
    """Why a listener is not accepted on its own account."""
    if listener.protocol not in PROTOCOLS:
        accepts = ", ".join(PROTOCOLS)
        return refused("UnsupportedProtocol", f"protocol accepts {accepts}, found {listener.protocol}")
    fields = [row.path for row in fields_set(listener, scope=Scope.LISTENER) if row.effect is Effect.REFUSED]
    if fields:
        return unsupported(f"not supported yet: {', '.join(fields)}")
    return None


def _conflicts(listeners: Sequence[Listener]) -> dict[str, Condition]:
    """The Conflicted condition by name of the listeners that are not distinct.

    Listeners of unsupported protocols are not accepted and conflict with nothing.
    Source: Gateway API, GatewaySpec.listeners.
    """
    conflicts: dict[str, Condition] = {}
    supported = [item for item in listeners if item.protocol in PROTOCOLS]
    for item in supported:
        others = [other for other in supported if other is not item and _opening(other) == _opening(item)]
        protocols = [other.name for other in others if family_of(other.protocol) != family_of(item.protocol)]
        hostnames = [other.name for other in others if _host(other) == _host(item)]
        if protocols:
            message = f"port {item.port} has another protocol in listener {', '.join(protocols)}"
            conflicts[item.name] = Condition(CONFLICTED, True, "ProtocolConflict", message)
        elif hostnames:
            message = f"port {item.port} with hostname {_host(item)} is also in listener {', '.join(hostnames)}"
            conflicts[item.name] = Condition(CONFLICTED, True, "HostnameConflict", message)
    return conflicts


def _opening(listener: Listener) -> Opening:
    return opening_of(listener.port, listener.protocol)


def _host(listener: Listener) -> str:
    return listener.hostname.lower() if listener.hostname else ANY_HOST
