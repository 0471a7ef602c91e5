"""Endpoints behind the port of a Service."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from controller.ir.streams import Transport
from controller.resources.core import Endpoint, EndpointSlice, Pod, Service, ServicePort
from controller.topology.conditions import Condition, unresolved
from controller.topology.index import Index

_H2C: Final = "kubernetes.io/h2c"
PROTOCOLS: Final = (None, "", "http", _H2C, "kubernetes.io/ws")
"""Values of a port's appProtocol that can be served."""
CALL_PROTOCOLS: Final = (None, "", "http", _H2C, "grpc")
"""Of a port that calls of gRPC go to, always by HTTP/2 without asking first."""
TLS_PROTOCOLS: Final = ("https", "kubernetes.io/wss")
"""Those that can be served beside them with TLS, whatever their case."""


def protocols(*, takes_calls: bool, has_tls: bool) -> tuple[str | None, ...]:
    """Values of a port's appProtocol that can be served. has_tls: a policy says so."""
    plain = CALL_PROTOCOLS if takes_calls else PROTOCOLS
    return (*plain, *TLS_PROTOCOLS) if has_tls else plain


def endpoints(
    service: Service,
    *,
    port: int,
    index: Index,
    transport: Transport = Transport.TCP,
    protocols: Collection[str | None] | None = PROTOCOLS,
) -> tuple[str, ...] | Condition:
    """`ip:port` of each ready endpoint behind a port, sorted; empty when none is ready.

    `protocols` are what the port's appProtocol may be; None where the gateway does not read what it passes on.
    Endpoints come from the Service's EndpointSlices. Where it has none, as in a directory, its pods serve.
    Reasons: BackendNotFound, UnsupportedProtocol, UnsupportedValue.
    """
    if service.spec.type == "ExternalName":
        return unresolved("UnsupportedValue", f"{service.key} is of type ExternalName, which is not supported")
    there = [item for item in service.spec.ports if item.port == port]
    if not there:
        has = ", ".join(str(item.port) for item in service.spec.ports) or "none"
        return unresolved("BackendNotFound", f"{service.key} has no port {port}, its ports are {has}")
    found = next((item for item in there if item.protocol == transport), None)
    if found is None:
        message = f"port {port} of {service.key} is {there[0].protocol}, accepted is {transport}"
        return unresolved("UnsupportedProtocol", message)
    if protocols is not None and not {found.app_protocol, str(found.app_protocol).lower()} & set(protocols):
        accepted = ", ".join(item for item in protocols if item)
        message = f"port {port} of {service.key} has appProtocol {found.app_protocol}, accepted is none, {accepted}"
        if str(found.app_protocol).lower() in TLS_PROTOCOLS:
            message = f"{message}; {found.app_protocol} needs a BackendTLSPolicy"
        return unresolved("UnsupportedProtocol", message)
    name = (service.metadata.namespace, service.metadata.name)
    slices = index.service_slices.get(name, ())
    if not slices and service.spec.selector:
        pods = index.pods_with(service.spec.selector, namespace=service.metadata.namespace)
        return _sorted(_pod_addresses(pods, port=found))
    return _sorted(_slice_addresses(slices, port=found))


def speaks_http2(service: Service, *, port: int) -> bool:
    """Whether a port takes HTTP/2, and nothing else. Source: KEP-3726, kubernetes.io/h2c."""
    return any(item.port == port and item.app_protocol == _H2C for item in service.spec.ports)


def ready_endpoints(slices: Iterable[EndpointSlice]) -> list[tuple[EndpointSlice, Endpoint]]:
    """Endpoints of slices with IP addresses that take requests.

    Those are the ready ones. Where none is ready, those that still serve while they end take them.
    Source: Kubernetes, EndpointConditions.
    """
    known = [(item, endpoint) for item in slices if item.address_type != "FQDN" for endpoint in item.endpoints]
    ready = [pair for pair in known if pair[1].conditions.ready is not False]
    return ready or [pair for pair in known if pair[1].conditions.serving and pair[1].conditions.terminating]


def is_ready(pod: Pod) -> bool:
    """Whether a pod takes requests. One without conditions does, so that a directory need not state them."""
    if pod.status.pod_ip is None or pod.metadata.deletion_timestamp is not None:
        return False
    if pod.status.phase in ("Succeeded", "Failed"):
        return False
    if not pod.status.conditions:
        return True
    return any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions)


def address(ip: str, port: int) -> str:
    """`ip:port`, an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _slice_addresses(slices: Sequence[EndpointSlice], *, port: ServicePort) -> Iterable[str]:
    for item, endpoint in ready_endpoints(slices):
        for candidate in item.ports:
            if candidate.name == port.name and candidate.port is not None and candidate.protocol == port.protocol:
                # The addresses of one endpoint are one program: the first stands for all.
                yield address(endpoint.addresses[0], candidate.port)


def _pod_addresses(pods: Iterable[Pod], *, port: ServicePort) -> Iterable[str]:
    for pod in pods:
        number = _target_port(pod, port=port)
        if number is not None and pod.status.pod_ip is not None and is_ready(pod):
            yield address(pod.status.pod_ip, number)


def _target_port(pod: Pod, *, port: ServicePort) -> int | None:
    """Number of a pod's port that a Service's port stands for, None when the pod has none of that name."""
    target = port.target_port or port.port
    if isinstance(target, int):
        return target
    ports = (item for container in pod.spec.containers for item in container.ports)
    return next((item.container_port for item in ports if item.name == target), None)


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(addresses)))
