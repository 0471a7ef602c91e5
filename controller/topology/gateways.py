"""GatewayClasses of ours, their Gateways and the listeners of those, ListenerSets' among them.

Listeners of one resource that conflict are all refused: none of them wins.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address

from controller.ir.streams import Opening
from controller.ir.types import Certificate
from controller.resources.gateway_api import GROUP, Gateway, GatewayClass, GatewayInfrastructure, Listener, ListenerSet
from controller.resources.parameters import GatewayParametersSpec
from controller.topology import certificates
from controller.topology.attachment import ANY_HOST, covers
from controller.topology.client_certificates import Frontend, frontend_of, insecure_mode
from controller.topology.conditions import (
    CONFLICTED,
    OVERLAPPING_TLS,
    Condition,
    accepted,
    ignored,
    merged,
    no_conflicts,
    ordered,
    refused,
    resolved_refs,
    unresolved,
    unsupported,
)
from controller.topology.index import Index
from controller.topology.listener_sets import admitted
from controller.topology.parameters import parameters_of, parameters_of_class
from controller.topology.protocols import (
    PROTOCOLS,
    family_of,
    is_passthrough,
    kinds_of,
    needs_certificates,
    opening_of,
)
from controller.topology.types import ClassState, DataPlaneState, GatewayState, ListenerState
from controller.topology.unsupported import Effect, Scope, fields_set


def class_state(item: GatewayClass, *, index: Index) -> ClassState:
    found = parameters_of_class(item, index=index)
    if isinstance(found, Condition):
        return ClassState(key=item.key, generation=item.metadata.generation, conditions=(found,))
    return ClassState(key=item.key, generation=item.metadata.generation, conditions=(accepted(),), parameters=found)


def gateway_state(gateway: Gateway, *, of: ClassState, index: Index, now: datetime | None) -> GatewayState:
    """A Gateway with its listeners, before routes are attached. Without `now` no certificate is called expired.

    Listeners of ListenerSets follow its own. Where two conflict, the one of the earlier resource has what both want.
    Source: Gateway API, ListenerSetSpec.listeners.
    """
    spec = gateway.spec
    claims = _Claims()
    listeners = _listener_states(gateway, gateway=gateway, claims=claims, index=index, now=now)
    of_sets = tuple(
        state
        for item in admitted(gateway, index=index)
        for state in _listener_states(item, gateway=gateway, claims=claims, index=index, now=now)
    )
    parameters = parameters_of(gateway, of_class=of.parameters, index=index)
    broken = parameters if isinstance(parameters, Condition) else None
    shown = _client_certificate(gateway, index=index)
    problem = broken or _problem(gateway, of=of) or _without_listeners(listeners)
    merged_listeners = (*listeners, *of_sets)
    if problem is not None:
        merged_listeners = tuple(replace(item, serves=False) for item in merged_listeners)
    return GatewayState(
        key=gateway.key,
        generation=gateway.metadata.generation,
        listeners=merged_listeners,
        conditions=ordered(
            problem or _accepted_with(listeners),
            _all_resolved(listeners, shown=shown, now=now),
            insecure_mode(gateway),
            ignored(row.path for row in fields_set(spec, scope=Scope.GATEWAY)),
        ),
        serves=any(item.serves for item in merged_listeners),
        addresses=tuple(item.value for item in spec.addresses if item.type == "IPAddress" and item.value),
        client_certificate=shown.certificate if isinstance(shown, certificates.Resolved) else None,
        data_plane=_data_plane(gateway, parameters=of.parameters if isinstance(parameters, Condition) else parameters),
    )


def _data_plane(gateway: Gateway, *, parameters: GatewayParametersSpec) -> DataPlaneState:
    infrastructure = gateway.spec.infrastructure or GatewayInfrastructure()
    return DataPlaneState(
        uid=gateway.metadata.uid,
        class_name=gateway.spec.gateway_class_name,
        labels=tuple(sorted(infrastructure.labels.items())),
        annotations=tuple(sorted(infrastructure.annotations.items())),
        parameters=parameters,
    )


def _problem(gateway: Gateway, *, of: ClassState) -> Condition | None:
    """Why the whole Gateway is not accepted, whatever its listeners are."""
    for number, address in enumerate(gateway.spec.addresses):
        if address.type != "IPAddress":
            message = f"spec.addresses[{number}].type accepts IPAddress, found {address.type}"
            return refused("UnsupportedAddress", message)
        if address.value and ip_address(address.value).is_multicast:
            message = f"spec.addresses[{number}].value {address.value} is a multicast address"
            return refused("UnsupportedAddress", message)
    for condition in of.conditions:
        if condition.type == "Accepted" and condition.status is not True:
            return refused(condition.reason, f"{of.key} is not accepted: {condition.message}")
    return None


def _without_listeners(listeners: Sequence[ListenerState]) -> Condition | None:
    if any(_is_accepted(item) for item in listeners):
        return None
    return refused("ListenersNotValid", "no listener is accepted, see listeners")


def _accepted_with(listeners: Sequence[ListenerState]) -> Condition:
    invalid = [item.name for item in listeners if not _is_accepted(item)]
    if not invalid:
        return accepted()
    valid = [item.name for item in listeners if _is_accepted(item)]
    message = f"listeners not accepted: {', '.join(invalid)}; accepted: {', '.join(valid)}"
    return replace(accepted(message), reason="ListenersNotValid")


def _client_certificate(gateway: Gateway, *, index: Index) -> certificates.Resolved | Condition | None:
    """What backends in TLS are shown; None where they are shown nothing.

    Reasons: InvalidClientCertificateRef, RefNotPermitted. Source: Gateway API, GatewayBackendTLS.clientCertificateRef.
    """
    backend = gateway.spec.tls.backend if gateway.spec.tls else None
    if backend is None or backend.client_certificate_ref is None:
        return None
    return certificates.certificate(
        backend.client_certificate_ref,
        owner=gateway,
        index=index,
        field="tls.backend.clientCertificateRef",
        reason="InvalidClientCertificateRef",
    )


def _all_resolved(
    listeners: Sequence[ListenerState], *, shown: certificates.Resolved | Condition | None, now: datetime | None
) -> Condition:
    broken = [
        item.name for item in listeners if any(c.type == "ResolvedRefs" and c.status is False for c in item.conditions)
    ]
    problems = [shown] if isinstance(shown, Condition) else []
    if broken:
        problems.append(unresolved("ListenersNotResolved", f"listeners: {', '.join(broken)}"))
    expired = _expired([shown] if isinstance(shown, certificates.Resolved) else (), now=now)
    return merged(problems) if problems else resolved_refs(expired)


def _is_accepted(listener: ListenerState) -> bool:
    return any(item.type == "Accepted" and item.status is True for item in listener.conditions)


@dataclass(frozen=True)
class _Claims:
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


def _listener_states(
    owner: Gateway | ListenerSet, *, gateway: Gateway, claims: _Claims, index: Index, now: datetime | None
) -> tuple[ListenerState, ...]:
    """Listeners of a Gateway or of a ListenerSet. Adds what they have to the claims."""
    listeners = owner.spec.listeners
    taken = {item.name: claims.conflict(item) for item in listeners}
    left = [item for item in listeners if taken[item.name] is None]
    conflicts = _conflicts(left)
    overlaps = _overlaps(left)
    states = tuple(
        _listener_state(
            item,
            owner=owner,
            gateway=gateway,
            conflict=taken[item.name] or conflicts.get(item.name),
            overlap=overlaps.get(item.name),
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
    overlap: Condition | None,
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
            merged(refs) if refs else resolved_refs(_expired(pairs, now=now)),
            overlap if problem is None else None,
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


def _expired(pairs: Iterable[certificates.Resolved], *, now: datetime | None) -> str:
    late = [item for item in pairs if now is not None and item.expires < now]
    return "; ".join(
        f"warning: the certificate of {item.certificate.source} expired at {item.expires:%Y-%m-%dT%H:%M:%SZ}"
        for item in late
    )


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


def _overlaps(listeners: Sequence[Listener]) -> dict[str, Condition]:
    """The OverlappingTLSConfig condition by name of HTTPS listeners whose hostnames overlap on one port.

    Source: Gateway API, ListenerConditionOverlappingTLSConfig.
    """
    overlaps: dict[str, Condition] = {}
    secured = [item for item in listeners if item.protocol == "HTTPS"]
    for item in secured:
        others = [
            other.name
            for other in secured
            if other is not item
            and other.port == item.port
            and (covers(_host(item), _host(other)) or covers(_host(other), _host(item)))
        ]
        if others:
            message = f"hostname {_host(item)} overlaps with that of listener {', '.join(others)}"
            overlaps[item.name] = Condition(OVERLAPPING_TLS, True, "OverlappingHostnames", message)
    return overlaps


def _host(listener: Listener) -> str:
    return listener.hostname.lower() if listener.hostname else ANY_HOST
