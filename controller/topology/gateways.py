"""GatewayClasses of ours and their Gateways, with the listeners of their own and those of ListenerSets."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address

from controller.resources.gateway_api import Gateway, GatewayClass, GatewayInfrastructure
from controller.resources.parameters import GatewayParametersSpec
from controller.topology import certificates
from controller.topology.client_certificates import insecure_mode
from controller.topology.conditions import (
    Condition,
    accepted,
    ignored,
    merged,
    ordered,
    refused,
    resolved_refs,
    unresolved,
)
from controller.topology.index import Index
from controller.topology.listener_sets import admitted
from controller.topology.listeners import Claims, listener_states
from controller.topology.overlaps import with_overlaps
from controller.topology.parameters import parameters_of, parameters_of_class
from controller.topology.types import ClassState, DataPlaneState, GatewayState, ListenerState
from controller.topology.unsupported import Scope, fields_set


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
    claims = Claims()
    listeners = listener_states(gateway, gateway=gateway, claims=claims, index=index, now=now)
    of_sets = tuple(
        state
        for item in admitted(gateway, index=index)
        for state in listener_states(item, gateway=gateway, claims=claims, index=index, now=now)
    )
    parameters = parameters_of(gateway, of_class=of.parameters, index=index)
    broken = parameters if isinstance(parameters, Condition) else None
    shown = _client_certificate(gateway, index=index)
    invalid = _without_listeners(listeners)
    problem = broken or _problem(gateway, of=of) or invalid
    merged_listeners = with_overlaps((*listeners, *of_sets))
    would_serve: tuple[ListenerState, ...] = ()
    if problem is not None:
        would_serve = tuple(item for item in merged_listeners if item.serves and invalid is None)
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
        would_serve=would_serve,
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
    warning = certificates.warning([shown] if isinstance(shown, certificates.Resolved) else (), now=now)
    return merged(problems) if problems else resolved_refs(warning)


def _is_accepted(listener: ListenerState) -> bool:
    return any(item.type == "Accepted" and item.status is True for item in listener.conditions)
