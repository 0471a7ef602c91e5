"""Which certificates clients of a port have to show, as the Gateway says.

All HTTPS listeners of a port share it, those of ListenerSets too, whose own namespace does not matter.

Source: Gateway API, FrontendTLSConfig.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controller.ir.policies import ClientValidation
from controller.resources.core import ConfigMap
from controller.resources.gateway_api import FrontendTLSConfig, FrontendTLSValidation, Gateway, ObjectReference
from controller.resources.meta import Key
from controller.topology.authorities import authorities_of
from controller.topology.conditions import INSECURE_FRONTEND, Condition, merged, refused, unresolved
from controller.topology.grants import permits
from controller.topology.index import Index


@dataclass(frozen=True)
class Frontend:
    """How clients of a port are known, and what is wrong with what is said of that."""

    validation: ClientValidation | None = None
    """None lets everybody in, unless there is a problem."""
    problem: Condition | None = None
    """Why nobody can be known, and so nobody is served: NoValidCACertificate."""
    unresolved: tuple[Condition, ...] = ()
    """References that do not resolve: InvalidCACertificateRef, InvalidCACertificateKind, RefNotPermitted."""


def frontend_of(gateway: Gateway, *, port: int, index: Index) -> Frontend:
    """What a Gateway says of the clients of its HTTPS listeners on a port."""
    found = next((item for item in _said(gateway) if item.port in (port, None)), None)
    if found is None or found.validation is None:
        return Frontend()
    certificates: dict[bytes, None] = {}
    problems = []
    for position, reference in enumerate(found.validation.ca_certificate_refs):
        where = f"{found.field}.validation.caCertificateRefs[{position}]"
        result = _referred(reference, where=where, gateway=gateway, index=index)
        if isinstance(result, Condition):
            problems.append(result)
        else:
            certificates.update(dict.fromkeys(result))
    if not certificates:
        problem = refused("NoValidCACertificate", merged(problems).message)
        return Frontend(problem=problem, unresolved=tuple(problems))
    is_required = found.validation.mode == "AllowValidOnly"
    return Frontend(ClientValidation(b"".join(certificates), is_required), unresolved=tuple(problems))


def insecure_mode(gateway: Gateway) -> Condition | None:
    """The condition that says so where clients are let in without a valid certificate, although one is asked for.

    Source: Gateway API, GatewayConditionInsecureFrontendValidationMode.
    """
    fields = [
        f"{item.field}.validation.mode"
        for item in _said(gateway)
        if item.validation and item.validation.mode == "AllowInsecureFallback"
    ]
    if not fields:
        return None
    message = f"AllowInsecureFallback lets in clients without a valid certificate: {', '.join(sorted(fields))}"
    return Condition(INSECURE_FRONTEND, True, "ConfigurationChanged", message)


@dataclass(frozen=True)
class _Said:
    """What stands in one place of the resource."""

    field: str
    port: int | None
    """None for every port that has no place of its own."""
    validation: FrontendTLSValidation | None


def _said(gateway: Gateway) -> Iterator[_Said]:
    """What is said of ports, and of all others at last."""
    frontend: FrontendTLSConfig | None = gateway.spec.tls.frontend if gateway.spec.tls else None
    if frontend is None:
        return
    for position, item in enumerate(frontend.per_port):
        yield _Said(f"spec.tls.frontend.perPort[{position}].tls", item.port, item.tls.validation)
    yield _Said("spec.tls.frontend.default", None, frontend.default.validation)


def _referred(
    reference: ObjectReference, *, where: str, gateway: Gateway, index: Index
) -> tuple[bytes, ...] | Condition:
    namespace = reference.namespace or gateway.metadata.namespace
    key = Key(reference.group, reference.kind, namespace, reference.name)
    if (reference.group, reference.kind) != (ConfigMap.group, "ConfigMap"):
        found = f"{reference.kind}.{reference.group}" if reference.group else reference.kind
        return unresolved("InvalidCACertificateKind", f"{where} accepts a ConfigMap of the core group, found {found}")
    if not permits(index.grants, source=gateway.key, target=key):
        message = f"{where}: {key} is in another namespace and no ReferenceGrant there permits {gateway.key} to use it"
        return unresolved("RefNotPermitted", message)
    return authorities_of(key, where=where, index=index)
