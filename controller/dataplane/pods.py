"""Pods of a data plane: nginx with its agent, and the picker, two containers of one image over one state directory."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.completions import COMPLETIONS_FILE
from controller.pools import POOLS_FILE
from controller.resources.parameters import Affinity, Autoscaling, GatewayParametersSpec, Resources, Spread
from controller.resources.scalars import seconds
from controller.wire import AUDIENCE

Json = dict[str, Any]  # any: an object in Kubernetes' shape

CA_FILE: Final = "ca.crt"
TOKEN_FILE: Final = "token"
STATE: Final = "/var/lib/infergate"
"""State directory, the only one that a container can write to. The image's account has it as its home."""
IDENTITY: Final = "/var/run/infergate"
"""Directory with the token and the certificates of the control plane."""
USER: Final = 10001
"""Account of the image."""

_HEALTH_PORT: Final = 8081
_METRICS_PORT: Final = 8082
_TOKEN_SECONDS: Final = 3600
"""A token is renewed after four fifths of it."""
_GRACE: Final = 300.0
"""Seconds that streams get when nothing is said: a long answer of a model."""
_BEFORE_GRACE: Final = 5
"""Seconds from a pod's end until nginx takes no more connections: until load balancers know."""
_AFTER_AGENT: Final = 3
"""Seconds that the picker waits longer than the agent may take."""
_AFTER_GRACE: Final = 10
"""Seconds that remain for processes to end."""
_REQUESTS: Final = {"cpu": "100m", "memory": "128Mi"}
_SPREAD: Final = (
    Spread(topology_key="kubernetes.io/hostname"),
    Spread(topology_key="topology.kubernetes.io/zone"),
)


@dataclass(frozen=True)
class Setting:
    """What a Deployment takes from its Gateway and from the control plane."""

    name: str
    gateway: str
    """`namespace/name`."""
    image: str
    server: str
    """URL of the control plane."""
    listener_ports: Collection[int]
    selector: Mapping[str, str]
    labels: Mapping[str, str]
    """Of all objects; the selector's are among them."""
    annotations: Mapping[str, str]
    replicas: int | None
    """None leaves it to an autoscaler."""
    has_peers: bool
    """Whether there may be more pods than one."""


def deployment(setting: Setting, parameters: GatewayParametersSpec) -> Json:
    """The spec of a Deployment."""
    annotations = {**setting.annotations, **(parameters.pod_annotations or {})}
    labels = {**(parameters.pod_labels or {}), **setting.labels}
    return {
        **({"replicas": setting.replicas} if setting.replicas is not None else {}),
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": dict(setting.selector)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {
                "labels": dict(sorted(labels.items())),
                **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
            },
            "spec": _pod(setting, parameters),
        },
    }


def _pod(setting: Setting, parameters: GatewayParametersSpec) -> Json:
    grace = _GRACE if parameters.grace_period is None else seconds(parameters.grace_period)
    return {
        "serviceAccountName": setting.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(grace) + _BEFORE_GRACE + _AFTER_GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
            # A capability of a container does not reach a process of another account than root. This does.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        **_placement(setting, parameters),
        **_pulling(parameters),
        "containers": [
            _nginx(setting, parameters, grace=grace),
            _picker(setting, parameters, grace=grace),
        ],
        "volumes": [
            {"name": "state", "emptyDir": {}},
            {
                "name": "identity",
                "projected": {
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": AUDIENCE,
                                "expirationSeconds": _TOKEN_SECONDS,
                                "path": TOKEN_FILE,
                            }
                        },
                        {"configMap": {"name": setting.name, "items": [{"key": CA_FILE, "path": CA_FILE}]}},
                    ]
                },
            },
        ],
    }


def _placement(setting: Setting, parameters: GatewayParametersSpec) -> Json:
    given = parameters.topology_spread_constraints
    spread = [_spread(item, selector=setting.selector) for item in (_SPREAD if given is None else given)]
    found = {
        "nodeSelector": parameters.node_selector,
        "affinity": _written(parameters.affinity or Affinity()),
        "tolerations": [_written(item) for item in parameters.tolerations or ()],
        "topologySpreadConstraints": spread,
        "priorityClassName": parameters.priority_class_name,
    }
    return {name: value for name, value in found.items() if value}


def _spread(item: Spread, *, selector: Mapping[str, str]) -> Json:
    """Pods of one version are spread, so that those of the former one, which go, do not count."""
    return {
        **_written(item),
        "labelSelector": {"matchLabels": dict(selector)},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _pulling(parameters: GatewayParametersSpec) -> Json:
    secrets = [{"name": item.name} for item in parameters.image_pull_secrets or ()]
    return {"imagePullSecrets": secrets} if secrets else {}


def _nginx(setting: Setting, parameters: GatewayParametersSpec, *, grace: float) -> Json:
    health = _free(_HEALTH_PORT, setting.listener_ports)
    given = parameters.resources.nginx if parameters.resources else None
    container = _container("nginx", setting, parameters, given=given)
    probe = {"port": "health", "scheme": "HTTP"}
    return {
        **container,
        "args": [
            "agent",
            *("--server", setting.server),
            *("--gateway", setting.gateway),
            *("--token-file", f"{IDENTITY}/{TOKEN_FILE}"),
            *("--ca-file", f"{IDENTITY}/{CA_FILE}"),
            *("--state", STATE),
            *("--probes", str(health)),
            *("--drain-delay", f"{_BEFORE_GRACE}"),
            *("--grace", f"{grace:g}"),
        ],
        "workingDir": STATE,
        "ports": [{"name": "health", "containerPort": health, "protocol": "TCP"}],
        "startupProbe": {"httpGet": {"path": "/healthz", **probe}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/healthz", **probe}, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", **probe}, "periodSeconds": 2, "timeoutSeconds": 2},
        "securityContext": _confined(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        "volumeMounts": [
            {"name": "state", "mountPath": STATE},
            {"name": "identity", "mountPath": IDENTITY, "readOnly": True},
        ],
    }


def _picker(setting: Setting, parameters: GatewayParametersSpec, *, grace: float) -> Json:
    metrics = _free(_METRICS_PORT, setting.listener_ports)
    given = parameters.resources.picker if parameters.resources else None
    container = _container("picker", setting, parameters, given=given)
    # Picks come over a socket of the state directory, so that is where its health is asked for.
    ask = ["curl", "--fail", "--silent", "--max-time", "2", "--unix-socket", f"{STATE}/run/picker.sock"]
    alive = {"exec": {"command": [*ask, "http://picker/healthz"]}}
    return {
        **container,
        "args": [
            "picker",
            *("--socket", "run/picker.sock"),
            *("--pools", POOLS_FILE),
            *("--completions", COMPLETIONS_FILE),
            *("--metrics-address", f"0.0.0.0:{metrics}"),
            # Retries of running streams ask it, so it goes after the agent, which holds this lock.
            *("--outlive", "lock"),
            *("--grace", f"{grace + _BEFORE_GRACE + _AFTER_AGENT:g}"),
            *(("--replicas",) if setting.has_peers else ()),
        ],
        "workingDir": STATE,
        "ports": [{"name": "metrics", "containerPort": metrics, "protocol": "TCP"}],
        "startupProbe": {**alive, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 60},
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 3},
        "securityContext": _confined(capabilities={"drop": ["ALL"]}),
        "volumeMounts": [{"name": "state", "mountPath": STATE}],
    }


def _container(name: str, setting: Setting, parameters: GatewayParametersSpec, *, given: Resources | None) -> Json:
    policy = parameters.image_pull_policy
    return {
        "name": name,
        "image": setting.image,
        **({"imagePullPolicy": policy} if policy else {}),
        "env": [{"name": "INFERGATE_LOG_FORMAT", "value": "json"}],
        "resources": {"requests": _REQUESTS} if given is None else _resources(given, parameters.autoscaling),
    }


def _resources(given: Resources, autoscaling: Autoscaling | None) -> Json:
    """As given. What an autoscaler measures by requests is requested: a limit counts as a request."""
    targets = {"cpu": autoscaling.cpu_utilization, "memory": autoscaling.memory_utilization} if autoscaling else {}
    needed = {name for name, percentage in targets.items() if percentage is not None}
    added = {name: _REQUESTS[name] for name in needed - given.requests.keys() - given.limits.keys()}
    requests = {**given.requests, **added}
    found = {"requests": dict(sorted(requests.items())), "limits": dict(sorted(given.limits.items()))}
    return {name: value for name, value in found.items() if value}


def _confined(*, capabilities: Json) -> Json:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities}


def _free(port: int, taken: Collection[int]) -> int:
    """The first port from `port` on that no listener has, two apart, so that two that start side by side never meet."""
    return next(found for found in range(port, 65536, 2) if found not in taken)


def _written(item: Affinity | Spread | Any) -> Json:  # any: a model of a part of a pod
    found: Json = item.model_dump(by_alias=True, exclude_none=True)
    return found
