import json
from typing import Any

from controller.provider.kubernetes.trim import trimmed
from controller.resources.core import EndpointSlice, Pod
from controller.resources.gateway_api import HTTPRoute
from controller.resources.kinds import read
from tests.provider.kubernetes.fake import route

POD: dict[str, Any] = {  # Any: an object of the API
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "vllm-0",
        "namespace": "llm",
        "labels": {"app": "vllm"},
        "annotations": {"inference.networking.k8s.io/ports": "8000", "sidecar": "x" * 5000},
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        "ownerReferences": [{"kind": "ReplicaSet", "name": "vllm"}],
    },
    "spec": {
        "containers": [
            {
                "name": "vllm",
                "image": "vllm:1",
                "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 8000}],
            },
            {"name": "sidecar", "image": "proxy:1"},
        ],
        "volumes": [{"name": "model", "emptyDir": {}}],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        ],
        "containerStatuses": [{"name": "vllm", "image": "vllm:1"}],
    },
}


def test_pod_keeps_only_what_is_read_of_it() -> None:
    kept = trimmed(POD, Pod)
    assert kept["metadata"]["annotations"] == {"inference.networking.k8s.io/ports": "8000"}
    assert kept["spec"] == {"containers": [{"name": "vllm", "ports": [{"containerPort": 8000}]}]}
    assert kept["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
    assert len(json.dumps(kept)) < 600


def test_trimmed_pod_is_the_same_resource_but_for_what_is_dropped() -> None:
    pod = read(trimmed(POD, Pod), index=1)
    assert isinstance(pod, Pod)
    assert (pod.status.pod_ip, pod.metadata.labels) == ("10.0.0.1", {"app": "vllm"})
    assert [item.ports[0].container_port for item in pod.spec.containers] == [8000]


def test_applied_configuration_is_dropped() -> None:
    document = route("one")
    document["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "own": "x"}
    assert trimmed(document, HTTPRoute)["metadata"]["annotations"] == {"own": "x"}


def test_spec_of_a_route_stays_whole() -> None:
    assert trimmed(route("one"), HTTPRoute)["spec"] == route("one")["spec"]


def test_time_of_an_endpoint_change_is_no_change() -> None:
    metadata = {"name": "a", "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "now"}}
    assert "annotations" not in trimmed({"metadata": metadata}, EndpointSlice)["metadata"]
