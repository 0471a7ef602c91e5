"""InferencePools: the endpoints behind them, and what is wrong with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.ir.policies import BackendTls
from controller.ir.types import Target, ToPool, ToStatus
from controller.plugins.types import DEFAULT_POLICY, AppliedPolicy
from controller.pools import Engine, ExternalPicker, FailureMode, ModelRewrite, PickerTls, Pool, PoolEndpoint, PoolTls
from controller.resources.core import Pod, Service
from controller.resources.inference import EndpointPickerRef, InferencePool
from controller.resources.meta import Key
from controller.topology import services
from controller.topology.conditions import (
    Condition,
    accepted,
    ordered,
    refused,
    resolved_refs,
    unresolved,
)
from controller.topology.index import Index, pool_name
from controller.topology.policies.backend_tls import BackendPolicies, BackendPort
from controller.topology.services import address, is_ready, ready_endpoints

OWN_GROUP: Final = "infergate.dev"
H2C: Final = "kubernetes.io/h2c"
ENGINE_LABELS: Final = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
PORT_ANNOTATIONS: Final = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
_ENGINES: Final = {
    "vllm": Engine.VLLM,
    "sglang": Engine.SGLANG,
    "llamacpp": Engine.LLAMA_CPP,
    "llama.cpp": Engine.LLAMA_CPP,
    "llama-cpp": Engine.LLAMA_CPP,
}


@dataclass(frozen=True)
class Standing:
    """What holds for a pool under every Gateway."""

    accepted: Condition
    resolved_refs: Condition
    external: ExternalPicker | None = None
    """Who picks; None: the picker beside nginx."""
    picker: BackendPort | None = None
    """The port of a Service that is asked, or would be without its BackendTLSPolicy's mistake."""

    def under(self, *, route_is_accepted: bool) -> tuple[Condition, ...]:
        """Conditions under a Gateway: one of whose routes to the pool is accepted there, or none."""
        standing = self.accepted
        if standing.status and not route_is_accepted:
            standing = refused("HTTPRouteNotAccepted", "no route to the pool is accepted by the Gateway")
        return ordered(standing, self.resolved_refs)


def standing(item: InferencePool, *, index: Index, policies: BackendPolicies) -> Standing:
    """Reasons: InvalidExtensionRef.

    A reference to a Service names an external picker. One without ready endpoints is a picker that cannot be reached.
    `policies` say how its certificate is known; one with a mistake leaves no picker, rather than one that nobody knows.
    """
    reference = item.spec.endpoint_picker_ref
    if reference is None or reference.group == OWN_GROUP:
        return Standing(accepted(), resolved_refs())
    field = f"spec.{item.picker_field}"
    service = _picker_service(reference, pool=item, field=field, index=index)
    if isinstance(service, Condition):
        return Standing(accepted(), service)
    assert reference.port is not None  # a reference to a Service without one is rejected
    port = reference.port.number
    # Services of pickers have http2, grpc and other values of appProtocol, which all mean gRPC.
    addresses = services.endpoints(service, port=port, index=index, protocols=None)
    if isinstance(addresses, Condition):
        return Standing(accepted(), unresolved("InvalidExtensionRef", f"{field}: {addresses.message}"))
    picker = (service.key, port)
    known = policies.of_service(service, port=port)
    if isinstance(known, Condition):
        message = f"{field}: {service.key} has a BackendTLSPolicy that is not accepted: {known.message}"
        return Standing(accepted(), unresolved("InvalidExtensionRef", message), picker=picker)
    tls = _picker_tls(known, speaks_plain=services.speaks_http2(service, port=port))
    external = ExternalPicker(f"{service.metadata.name}.{service.metadata.namespace}.svc:{port}", addresses, tls=tls)
    return Standing(accepted(), resolved_refs(_told(service.key, tls)), external, picker)


def target(item: InferencePool, *, standing: Standing, tls: BackendTls | None = None) -> Target:
    """Where requests to a pool go.

    A picker that cannot be resolved is one that cannot be reached: the failure mode decides.
    """
    if not standing.resolved_refs.status and failure_mode(item) is FailureMode.FAIL_CLOSE:
        return ToStatus(500, standing.resolved_refs.message)
    return ToPool(_name(item), tls=tls)


def failure_mode(item: InferencePool) -> FailureMode:
    reference = item.spec.endpoint_picker_ref
    return FailureMode(reference.failure_mode) if reference is not None else FailureMode.FAIL_CLOSE


def pool_of(
    item: InferencePool,
    *,
    index: Index,
    standing: Standing | None = None,
    policy: AppliedPolicy = DEFAULT_POLICY,
    rewrites: tuple[ModelRewrite, ...] = (),
    tls: BackendTls | None = None,
) -> Pool:
    """A pool with its ready endpoints, one for each address. Without a standing it has no external picker."""
    by_address: dict[str, PoolEndpoint] = {}
    for endpoint in sorted((*_of_pods(item, index=index), *_of_slices(item, index=index)), key=_order):
        by_address.setdefault(endpoint.address, endpoint)
    return Pool(
        name=_name(item),
        endpoints=tuple(by_address.values()),
        failure_mode=failure_mode(item),
        policy=policy,
        rewrites=rewrites,
        speaks_http2=item.spec.app_protocol == H2C,
        external=standing.external if standing is not None else None,
        tls=_tls(tls) if tls else None,
    )


def _tls(tls: BackendTls) -> PoolTls:
    return PoolTls(
        tls.hostname,
        tls.authorities.decode(),
        hostnames=tuple(item.name for item in tls.names if not item.is_uri),
        uris=tuple(item.name for item in tls.names if item.is_uri),
    )


def _name(item: InferencePool) -> str:
    return "/".join(pool_name(item.key))


def _order(endpoint: PoolEndpoint) -> tuple[str, str]:
    return (endpoint.address, endpoint.name)


def _of_pods(item: InferencePool, *, index: Index) -> Iterable[PoolEndpoint]:
    ports = [port.number for port in item.spec.target_ports]
    for pod in index.pods_with(item.spec.selector.match_labels, namespace=item.metadata.namespace):
        if pod.status.pod_ip is None or not is_ready(pod):
            continue
        for port in _active(pod, ports=ports):
            yield PoolEndpoint(
                address=address(pod.status.pod_ip, port),
                name=pod.key.path,
                labels=dict(sorted(pod.metadata.labels.items())),
                engine=_engine(pod.metadata.labels),
                uid=pod.metadata.uid,
            )


def _active(pod: Pod, *, ports: list[int]) -> list[int]:
    """Those of the pool's ports on which a pod serves: all, or the ones that its annotation lists."""
    listed = next((pod.metadata.annotations[key] for key in PORT_ANNOTATIONS if key in pod.metadata.annotations), None)
    if listed is None:
        return ports
    active = {part.strip() for part in listed.split(",")}
    return [port for port in ports if str(port) in active]


def _of_slices(item: InferencePool, *, index: Index) -> Iterable[PoolEndpoint]:
    for piece, endpoint in ready_endpoints(index.pool_slices.get((item.metadata.namespace, item.metadata.name), ())):
        if endpoint.conditions.terminating:
            # Its work lasts minutes: it could not end what it would be given.
            continue
        for port in piece.ports:
            if port.port is not None and port.protocol == "TCP":
                yield PoolEndpoint(
                    address=address(endpoint.addresses[0], port.port),
                    name=piece.key.path,
                    labels=dict(sorted(piece.metadata.labels.items())),
                    engine=_engine(piece.metadata.labels),
                    uid=piece.metadata.uid,
                )


def _engine(labels: Mapping[str, str]) -> Engine | None:
    named = next((labels[key] for key in ENGINE_LABELS if key in labels), "")
    return _ENGINES.get(named.lower())


def _picker_service(
    reference: EndpointPickerRef, *, pool: InferencePool, field: str, index: Index
) -> Service | Condition:
    if (reference.group, reference.kind) != (Service.group, "Service"):
        found = f"{reference.kind}.{reference.group}" if reference.group else reference.kind
        accepts = f"a Service of the core group or the group {OWN_GROUP}"
        return unresolved("InvalidExtensionRef", f"{field} accepts {accepts}, found {found}")
    service = index.services.get((pool.metadata.namespace, reference.name))
    if service is None:
        target = Key(reference.group, reference.kind, pool.metadata.namespace, reference.name)
        return unresolved("InvalidExtensionRef", f"{field}: {target} does not exist")
    return service


def _picker_tls(known: BackendTls | None, *, speaks_plain: bool) -> PickerTls | None:
    """Pickers serve TLS with a certificate of their own making, unless a policy or their Service says otherwise."""
    if known is None:
        return None if speaks_plain else PickerTls()
    return PickerTls(
        ca=known.authorities.decode(),
        server_name=known.hostname,
        hostnames=tuple(item.name for item in known.names if not item.is_uri),
        uris=tuple(item.name for item in known.names if item.is_uri),
    )


def _told(service: Key, tls: PickerTls | None) -> str:
    """How a picker is spoken to, for whoever reads the status of its pool."""
    if tls is None:
        return f"{service} is asked in plain text"
    if not tls.ca:
        return f"{service} is asked in TLS; its certificate is not verified, which a BackendTLSPolicy changes"
    return f"{service} is asked in TLS; its certificate is verified"
