"""Objects of the benchmark, in Kubernetes' shape."""

from typing import Final

from controller.kube import Json
from tools.bench.resources import REVISION_HEADER

HOME: Final = "bench"
"""Namespace of the Gateway and of the backend."""
GATEWAY: Final = "edge"
HOST: Final = "bench.example.com"
ECHO: Final = "gcr.io/k8s-staging-gateway-api/echo-basic:v20240412-v1.0.0-394-g40c666fd"
ECHO_PORT: Final = 3000
_NOWHERE: Final = "infergate-bench-nowhere"
"""A node without a kubelet: nobody starts its pods or changes their statuses."""


def namespace(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def gateway() -> Json:
    """One listener for routes of all namespaces."""
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": HOME},
        "spec": {"gatewayClassName": "infergate", "listeners": [listener]},
    }


def echo() -> Json:
    """The only pod that answers."""
    environment = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
        for name, field in (("POD_NAME", "name"), ("NAMESPACE", "namespace"))
    ]
    container = {"name": "echo", "image": ECHO, "env": environment, "ports": [{"containerPort": ECHO_PORT}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "echo", "namespace": HOME},
        "spec": {"containers": [container]},
    }


def service(namespace: str) -> Json:
    """Has no selector: its endpoints are those of `endpoints`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo", "namespace": namespace},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": ECHO_PORT}]},
    }


def endpoints(namespace: str, *, address: str) -> Json:
    """The echo pod, as the only endpoint of a namespace's Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "echo-bench", "namespace": namespace, "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": ECHO_PORT, "protocol": "TCP"}],
    }


def path_of(number: int) -> str:
    """The path by which a route is reached."""
    return f"/route-{number}"


def route(number: int, *, namespace: str, revision: int = 0) -> Json:
    """An HTTPRoute whose answers name the revision that it was written with."""
    answer = {"set": [{"name": REVISION_HEADER, "value": str(revision)}]}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path_of(number)}}],
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": answer}],
        "backendRefs": [{"name": "echo", "port": 80}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"route-{number}", "namespace": namespace},
        "spec": {"parentRefs": [{"name": GATEWAY, "namespace": HOME}], "hostnames": [HOST], "rules": [rule]},
    }


def pool() -> Json:
    """An InferencePool of all pods of `pod`."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "llm", "namespace": HOME},
        "spec": {
            "selector": {"matchLabels": {"app": "llm"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "llm-picker", "port": {"number": 9002}},
        },
    }


def node() -> Json:
    """Keeps the API server's collector of orphans from the pods."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": _NOWHERE}}


def pod(number: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"llm-{number}", "namespace": HOME, "labels": {"app": "llm"}},
        "spec": {"nodeName": _NOWHERE, "containers": [{"name": "server", "image": "example.com/model-server:1"}]},
    }


def pod_status(number: int) -> Json:
    """Of a pod that is ready at an address for benchmarks (RFC 2544)."""
    address = f"198.18.{number // 250}.{number % 250 + 1}"
    ready = [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready", "PodScheduled")]
    return {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}}
