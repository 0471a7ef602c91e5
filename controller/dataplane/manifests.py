"""The objects of a Gateway's own data plane, as they are applied. The same Gateway gives the same bytes.

Nothing here depends on time, on a node or on what is live, so that a control plane that starts again rolls nothing.
Ports of listeners are only in the Service: a listener that comes or goes leaves the pods as they are.

Source: Gateway API, GatewayInfrastructure, and GEP-1762 for names, labels and owners.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.dataplane import pods
from controller.ir.streams import Opening, Transport
from controller.resources.gateway_api import GROUP
from controller.resources.meta import Key
from controller.resources.parameters import GatewayParametersSpec, ServiceParameters
from controller.topology.types import GatewayState

Json = dict[str, Any]  # any: an object in Kubernetes' shape

CA_FILE: Final = pods.CA_FILE
"""Key of the certificates in the ConfigMap, and name of the file that instances read."""

_LONGEST_NAME: Final = 63
"""Of a Service, which is a DNS label, and of the value of a label."""
_DIGEST: Final = 10
"""Hexadecimal digits of a shortened name: two of a billion names are alike once in a thousand times."""
_GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"
_CLASS_LABEL: Final = "gateway.networking.k8s.io/gateway-class-name"
_REPLICAS: Final = 2
"""So that one may go, with its node too."""


@dataclass(frozen=True)
class ControlPlane:
    """What data planes know of the control plane."""

    image: str
    """Of both containers, where parameters say nothing else."""
    server: str
    """URL at which bundles are asked for."""
    certificates: str
    """Certificates that the server's is checked with, as PEM. They may change without a pod being replaced."""


def name_of(gateway: Key) -> str:
    """Name of a Gateway's Deployment, Service, ServiceAccount and so on, in the namespace of the Gateway.

    A DNS label of at most 63 characters that starts with a letter, and another one for each Gateway.
    """
    return _short(f"infergate-{gateway.name}", is_label=True)


def manifests(gateway: GatewayState, *, control_plane: ControlPlane) -> tuple[Json, ...]:
    """The objects, in the order in which they are applied.

    All are owned by the Gateway and go with it. One that was there for another state of the Gateway, and is not among
    these, is to be deleted.
    """
    parameters = gateway.data_plane.parameters
    selector = _selector(gateway.key)
    objects = [
        _object(gateway, "v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        _object(gateway, "v1", "ConfigMap", {"data": {CA_FILE: control_plane.certificates}}),
        _service(gateway, parameters.service or ServiceParameters(), selector=selector),
    ]
    if least_replicas(parameters) > 1:
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
        objects.append(_object(gateway, "policy/v1", "PodDisruptionBudget", {"spec": spec}))
    deployment = pods.deployment(
        pods.Setting(
            name=name_of(gateway.key),
            gateway=gateway.key.path,
            image=parameters.image or control_plane.image,
            server=control_plane.server,
            listener_ports=frozenset(
                item.port for item in gateway.listeners if item.opening.transport is Transport.TCP
            ),
            selector=selector,
            labels=_labels(gateway),
            annotations=dict(gateway.data_plane.annotations),
            replicas=None if parameters.autoscaling else parameters.replicas or _REPLICAS,
            has_peers=most_replicas(parameters) > 1,
        ),
        parameters,
    )
    objects.append(_object(gateway, "apps/v1", "Deployment", {"spec": deployment}))
    if parameters.autoscaling:
        objects.append(_object(gateway, "autoscaling/v2", "HorizontalPodAutoscaler", {"spec": _scaling(gateway)}))
    return tuple(objects)


def least_replicas(parameters: GatewayParametersSpec) -> int:
    """Pods of a data plane at least."""
    return parameters.autoscaling.min_replicas if parameters.autoscaling else parameters.replicas or _REPLICAS


def most_replicas(parameters: GatewayParametersSpec) -> int:
    """Pods of a data plane at most, but for those that are being replaced."""
    return parameters.autoscaling.max_replicas if parameters.autoscaling else parameters.replicas or _REPLICAS


def _object(
    gateway: GatewayState, api_version: str, kind: str, content: Json, *, annotations: Mapping[str, str] | None = None
) -> Json:
    noted = {**dict(gateway.data_plane.annotations), **(annotations or {})}
    owner = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "name": gateway.key.name,
        "uid": gateway.data_plane.uid,
        "controller": True,
    }
    metadata = {
        "name": name_of(gateway.key),
        "namespace": gateway.key.namespace,
        "labels": _labels(gateway),
        **({"annotations": dict(sorted(noted.items()))} if noted else {}),
        "ownerReferences": [owner],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def _selector(gateway: Key) -> dict[str, str]:
    """Labels by which a Gateway's pods are found. A Deployment's cannot be changed, so these stay as they are."""
    return {"app.kubernetes.io/name": "infergate", _GATEWAY_LABEL: _short(gateway.name)}


def _labels(gateway: GatewayState) -> dict[str, str]:
    """Labels of every object. A user's go below ours."""
    own = {
        "app.kubernetes.io/component": "data-plane",
        "app.kubernetes.io/managed-by": "infergate",
        _CLASS_LABEL: _short(gateway.data_plane.class_name),
        **_selector(gateway.key),
    }
    return dict(sorted({**dict(gateway.data_plane.labels), **own}.items()))


def _short(name: str, *, is_label: bool = False) -> str:
    """A name of at most 63 characters: one that does not fit, or is no DNS label where it must be, gets a digest."""
    if len(name) <= _LONGEST_NAME and not (is_label and "." in name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    kept = re.sub("[^a-z0-9-]", "-", name) if is_label else name
    return f"{kept[: _LONGEST_NAME - _DIGEST - 1].rstrip('-.')}-{digest}"


def _service(gateway: GatewayState, parameters: ServiceParameters, *, selector: Mapping[str, str]) -> Json:
    kind = parameters.type or "LoadBalancer"
    spec: Json = {
        "type": kind,
        "selector": dict(selector),
        "ports": [
            {"name": _port_name(item), "port": item.port, "protocol": str(item.transport), "targetPort": item.port}
            for item in _openings(gateway)
        ],
    }
    if kind == "LoadBalancer":
        if parameters.load_balancer_class:
            spec["loadBalancerClass"] = parameters.load_balancer_class
        if gateway.addresses:  # a load balancer can be asked for one; whether it has it, its status says
            spec["loadBalancerIP"] = gateway.addresses[0]
    elif gateway.addresses:
        spec["externalIPs"] = list(gateway.addresses)
    if kind != "ClusterIP" and parameters.external_traffic_policy:
        spec["externalTrafficPolicy"] = parameters.external_traffic_policy
    return _object(gateway, "v1", "Service", {"spec": spec}, annotations=parameters.annotations)


def _port_name(opening: Opening) -> str:
    return f"port-{opening.port}" if opening.transport is Transport.TCP else f"port-{opening.port}-udp"


def _openings(gateway: GatewayState) -> list[Opening]:
    """What the listeners open that are accepted, whether they have all that they need or not.

    A certificate that is missing for a while does not take a port from the Service, whose node port would be another
    one afterwards. A Service needs a port: where no listener is accepted, all listeners count.
    """
    accepted = {
        item.opening
        for item in gateway.listeners
        if any(condition.type == "Accepted" and condition.status is True for condition in item.conditions)
    }
    return sorted(accepted or {item.opening for item in gateway.listeners})


def _scaling(gateway: GatewayState) -> Json:
    scaling = gateway.data_plane.parameters.autoscaling
    assert scaling is not None
    targets = {"cpu": scaling.cpu_utilization, "memory": scaling.memory_utilization}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name_of(gateway.key)},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percentage}},
            }
            for name, percentage in targets.items()
            if percentage is not None
        ],
    }
