"""Resources by what they are looked up by. Scanning them for every route took 40 times as long as the rest."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from controller.resources.backend_tls import BackendTLSPolicy
from controller.resources.core import ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service
from controller.resources.gateway_api import (
    Gateway,
    GatewayClass,
    HTTPRoute,
    LabelSelector,
    LabelSelectorRequirement,
    ListenerSet,
    ReferenceGrant,
)
from controller.resources.grpc_route import GRPCRoute, RequestRoute
from controller.resources.inference import InferencePool
from controller.resources.legacy import InferenceModel, LegacyInferencePool
from controller.resources.meta import Key, Resource
from controller.resources.parameters import GatewayParameters
from controller.resources.policies import InferenceObjective, PickerPolicy
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.snapshot import Snapshot
from controller.resources.stream_routes import StreamRoute
from controller.topology.grants import Grants, grants_of

SERVICE_LABEL: Final = "kubernetes.io/service-name"
POOL_LABEL: Final = "infergate.dev/inference-pool"
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"

Name = tuple[str, str]
"""(namespace, name)."""

POOL_GROUPS: Final = (InferencePool.group, LegacyInferencePool.group)
"""Groups that have InferencePools. Pools of one name in both are two pools."""


@dataclass(frozen=True)
class Index:
    """What a build looks up. Lists are in the order of the snapshot."""

    classes: tuple[GatewayClass, ...]
    gateways: tuple[Gateway, ...]
    listener_sets: Mapping[Key, list[ListenerSet]]
    """By what they name as their parent."""
    routes: tuple[RequestRoute, ...]
    stream_routes: tuple[StreamRoute, ...]
    """Of all three kinds, each oldest first."""
    pools: Mapping[Name, InferencePool]
    """By `pool_name`; those of the legacy group in the present shape."""
    policies: tuple[PickerPolicy, ...]
    tls_policies: tuple[BackendTLSPolicy, ...]
    objectives: tuple[InferenceObjective, ...]
    rewrites: tuple[InferenceModelRewrite, ...]
    models: tuple[InferenceModel, ...]
    parameters: Mapping[Name, GatewayParameters]
    services: Mapping[Name, Service]
    secrets: Mapping[Name, Secret]
    config_maps: Mapping[Name, ConfigMap]
    service_slices: Mapping[Name, list[EndpointSlice]]
    """By namespace and the Service that they are labelled with."""
    pool_slices: Mapping[Name, list[EndpointSlice]]
    """By namespace and the InferencePool that they are labelled with."""
    pods: Mapping[str, list[Pod]]
    """By namespace."""
    pods_labelled: Mapping[tuple[str, str, str], list[Pod]]
    """By namespace, label and its value."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels by name, of Namespaces that were read."""
    grants: Grants

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace; one that was not read has its name as its only label."""
        return {**self.namespaces.get(name, {}), NAMESPACE_LABEL: name}

    def pods_with(self, labels: Mapping[str, str], *, namespace: str) -> list[Pod]:
        """Pods of a namespace that have all `labels`."""
        if not labels:
            return self.pods.get(namespace, [])
        candidates = [self.pods_labelled.get((namespace, name, value), []) for name, value in labels.items()]
        wanted = labels.items()
        return [pod for pod in min(candidates, key=len) if wanted <= pod.metadata.labels.items()]


def index_of(snapshot: Snapshot) -> Index:
    slices = tuple(snapshot.of(EndpointSlice))
    pods = tuple(snapshot.of(Pod))
    return Index(
        classes=tuple(snapshot.of(GatewayClass)),
        gateways=tuple(snapshot.of(Gateway)),
        listener_sets=_grouped((item.parent, item) for item in snapshot.of(ListenerSet)),
        routes=(*snapshot.of(HTTPRoute), *snapshot.of(GRPCRoute)),
        stream_routes=tuple(snapshot.of(StreamRoute)),
        pools={pool_name(item.key): item for item in _pools(snapshot)},
        policies=tuple(snapshot.of(PickerPolicy)),
        tls_policies=tuple(snapshot.of(BackendTLSPolicy)),
        objectives=tuple(snapshot.of(InferenceObjective)),
        rewrites=tuple(snapshot.of(InferenceModelRewrite)),
        models=tuple(snapshot.of(InferenceModel)),
        parameters={_name(item): item for item in snapshot.of(GatewayParameters)},
        services={_name(item): item for item in snapshot.of(Service)},
        secrets={_name(item): item for item in snapshot.of(Secret)},
        config_maps={_name(item): item for item in snapshot.of(ConfigMap)},
        service_slices=_labelled(slices, SERVICE_LABEL),
        pool_slices=_labelled(slices, POOL_LABEL),
        pods=_grouped((pod.metadata.namespace, pod) for pod in pods),
        pods_labelled=_grouped(
            ((pod.metadata.namespace, name, value), pod) for pod in pods for name, value in pod.metadata.labels.items()
        ),
        namespaces={item.metadata.name: item.metadata.labels for item in snapshot.of(Namespace)},
        grants=grants_of(snapshot.of(ReferenceGrant)),
    )


def pool_name(key: Key) -> Name:
    """What an InferencePool is called in the data plane, where no group tells two of one name apart.

    `:` is in no name of a resource.
    """
    return (key.namespace, key.name if key.group == InferencePool.group else f"{key.name}:v1alpha2")


def is_pool(*, group: str, kind: str) -> bool:
    """Whether a reference names an InferencePool, of either group."""
    return kind == InferencePool.kind_name() and group in POOL_GROUPS


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy all of a selector; an empty one selects everything.

    Source: Kubernetes, LabelSelector.
    """
    return selector.match_labels.items() <= labels.items() and all(
        _holds(item, labels) for item in selector.match_expressions
    )


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case _:
            return False


def _pools(snapshot: Snapshot) -> Iterator[InferencePool]:
    """In the order of the snapshot, where the kind alone counts."""
    for item in snapshot.resources:
        if isinstance(item, InferencePool):
            yield item
        elif isinstance(item, LegacyInferencePool):
            yield item.in_present_shape()


def _name(item: Resource) -> Name:
    return (item.metadata.namespace, item.metadata.name)


def _labelled(slices: Iterable[EndpointSlice], label: str) -> Mapping[Name, list[EndpointSlice]]:
    return _grouped(
        ((item.metadata.namespace, item.metadata.labels[label]), item)
        for item in slices
        if label in item.metadata.labels
    )


K = TypeVar("K")
V = TypeVar("V")


def _grouped(items: Iterable[tuple[K, V]]) -> Mapping[K, list[V]]:
    groups: defaultdict[K, list[V]] = defaultdict(list)
    for key, item in items:
        groups[key].append(item)
    return dict(groups)
