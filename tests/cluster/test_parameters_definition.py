"""The definition of GatewayParameters on a real API server."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.errors import ApiRefused
from tests.cluster.plain_api import PlainApi
from tools.crds import DIRECTORY

Json = dict[str, Any]  # any: objects in Kubernetes' shape
PATH = "/apis/infergate.dev/v1alpha1/namespaces/default/gatewayparameters"


@pytest.fixture
async def api() -> AsyncIterator[PlainApi]:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("needs a cluster: KUBECONFIG is not set")
    async with PlainApi(Path(kubeconfig)) as found:
        for file in sorted(DIRECTORY.glob("*.yaml")):
            await _define(found, yaml.safe_load(file.read_text()))
        yield found


async def _define(api: PlainApi, definition: Json) -> None:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
    await api.request("PATCH", path, definition, query={"fieldManager": "tests", "force": "true"})
    async with asyncio.timeout(20):
        while True:
            status = (await api.request("GET", path)).get("status", {})
            conditions = status.get("conditions") or ()  # null while nobody has looked at it
            if any(item["type"] == "Established" and item["status"] == "True" for item in conditions):
                return


def _document(spec: Json) -> Json:
    head = {"apiVersion": "infergate.dev/v1alpha1", "kind": "GatewayParameters"}
    return {**head, "metadata": {"generateName": "p-", "namespace": "default"}, "spec": spec}


GOOD: list[Json] = [
    {},
    {"autoscaling": {"maxReplicas": 3}},
    {"resources": {"nginx": {"limits": {"cpu": 2, "memory": "1Gi"}}}, "nginx": {"maxBodySize": 4096}},
    {"affinity": {"nodeAffinity": {"x": {"y": [1]}}}, "gracePeriod": "1h30m"},
    {"service": {"loadBalancerClass": "a.example/a", "externalTrafficPolicy": "Local"}},
]
BAD: list[tuple[Json, str]] = [
    ({"replicas": 0}, "spec.replicas"),
    ({"autoscaling": {"maxReplicas": 1}}, "minReplicas: at most maxReplicas"),
    ({"gracePeriod": "1s"}, "gracePeriod: from 5s to 24h"),
    ({"gracePeriod": "1d"}, "spec.gracePeriod"),
    ({"nginx": {"maxBodySize": "100"}}, "maxBodySize: from 1Ki to 64Gi"),
    ({"nginx": {"maxBodySize": 100}}, "maxBodySize: from 1Ki to 64Gi"),
    ({"nginx": {"maxBodySize": "1 MB"}}, "spec.nginx.maxBodySize"),
    ({"service": {"type": "ClusterIP", "loadBalancerClass": "a"}}, "loadBalancerClass: only with type LoadBalancer"),
    ({"service": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}}, "externalTrafficPolicy: not with type"),
    ({"tolerations": [{"effect": "Never"}]}, "spec.tolerations[0].effect"),
]


@pytest.mark.parametrize("spec", GOOD)
async def test_api_server_takes_parameters(api: PlainApi, spec: Json) -> None:
    made = await api.request("POST", PATH, _document(spec))
    assert made["spec"].items() >= {name: value for name, value in spec.items() if name != "autoscaling"}.items()


@pytest.mark.parametrize(("spec", "words"), BAD)
async def test_api_server_refuses_mistakes(api: PlainApi, spec: Json, words: str) -> None:
    with pytest.raises(ApiRefused) as refusal:
        await api.request("POST", PATH, _document(spec))
    assert words in refusal.value.message
