"""Data planes of Gateways on a real API server: what it makes of our objects."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.dataplane.manifests import ControlPlane, manifests
from controller.dataplane.provision import COLLECTIONS, Provisioner
from controller.errors import ApiMissing
from controller.resources.gateway_api import CONTROLLER_NAME, Gateway, GatewayClass
from controller.resources.meta import Key
from controller.resources.parameters import GatewayParameters
from controller.resources.snapshot import snapshot
from controller.topology.build import build
from tests.cluster.plain_api import PlainApi, restricted_pod

Json = dict[str, Any]  # any: objects in Kubernetes' shape

CLASS = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "provisioned"},
    "spec": {"controllerName": CONTROLLER_NAME},
}
CONTROL_PLANE = ControlPlane(image="infergate:test", server="https://infergate:8443", certificates="PEM")


class Cluster:
    """One namespace with one Gateway."""

    def __init__(self, api: PlainApi, gateway: Json) -> None:
        self.api = api
        self.gateway = gateway
        metadata = gateway["metadata"]
        self.key = Key("gateway.networking.k8s.io", "Gateway", metadata["namespace"], metadata["name"])
        self.provisioner = Provisioner(api)

    def objects(self, **parameters: Any) -> tuple[Json, ...]:  # any: fields of GatewayParameters
        reference = {"group": "infergate.dev", "kind": "GatewayParameters", "name": "p"}
        spec = {**self.gateway["spec"], "infrastructure": {"parametersRef": reference, "labels": {"team": "a"}}}
        own = {"apiVersion": "infergate.dev/v1alpha1", "kind": "GatewayParameters", "spec": parameters}
        found = snapshot(
            [
                GatewayClass.model_validate(CLASS),
                Gateway.model_validate({**self.gateway, "spec": spec}),
                GatewayParameters.model_validate({**own, "metadata": {"name": "p", "namespace": self.key.namespace}}),
            ]
        )
        (state,) = build(found, controller_name=CONTROLLER_NAME).gateways
        return manifests(state, control_plane=CONTROL_PLANE)

    async def get(self, kind: str) -> Json:
        group = {"services": "/api/v1", "configmaps": "/api/v1", "deployments": "/apis/apps/v1"}[kind]
        (item,) = (await self.api.request("GET", f"{group}/namespaces/{self.key.namespace}/{kind}"))["items"]
        found: Json = item
        return found


@pytest.fixture
async def api() -> AsyncIterator[PlainApi]:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("needs a cluster: KUBECONFIG is not set")
    async with PlainApi(Path(kubeconfig)) as found:
        yield found


@pytest.fixture(params=["web", "w" * 253])
async def cluster(api: PlainApi, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    namespace = f"provision-{secrets.token_hex(4)}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": request.param, "namespace": namespace},
        "spec": {
            "gatewayClassName": "provisioned",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }
    made = await api.request("POST", f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways", gateway)
    yield Cluster(api, {**gateway, "metadata": made["metadata"]})
    await api.request("DELETE", f"/api/v1/namespaces/{namespace}")


ALL: Json = {
    "resources": {"nginx": {"requests": {"cpu": 1}, "limits": {"cpu": "2", "memory": "1Gi"}}},
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "fast"},
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "topologySpreadConstraints": [
        {"topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2, "maxSkew": 2}
    ],
    "priorityClassName": "system-cluster-critical",
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "pull"}],
    "gracePeriod": "90s",
    "service": {"annotations": {"a": "b"}, "loadBalancerClass": "x.example/y", "externalTrafficPolicy": "Local"},
}


@pytest.mark.parametrize(
    "parameters", [{}, ALL, {"autoscaling": {"maxReplicas": 5}}, {"service": {"type": "NodePort"}}, {"replicas": 1}]
)
async def test_api_server_takes_what_is_made(cluster: Cluster, parameters: Json) -> None:
    objects = cluster.objects(**parameters)
    found = await cluster.provisioner.provision(cluster.key, objects)

    assert found.problems == ()
    assert len(found.changed) == len(objects)


async def test_applying_again_writes_nothing(cluster: Cluster) -> None:
    objects = cluster.objects(**ALL)
    await cluster.provisioner.provision(cluster.key, objects)
    before = await cluster.get("deployments")

    again = await cluster.provisioner.provision(cluster.key, objects)
    of_another = await Provisioner(cluster.api).provision(cluster.key, objects)

    assert (again.changed, of_another.changed) == ((), ())
    assert (await cluster.get("deployments"))["metadata"]["generation"] == before["metadata"]["generation"]


async def test_service_keeps_its_identity_when_ports_and_type_change(cluster: Cluster) -> None:
    await cluster.provisioner.provision(cluster.key, cluster.objects())
    before = await cluster.get("services")
    cluster.gateway["spec"]["listeners"].append({"name": "more", "port": 8080, "protocol": "HTTP"})

    await cluster.provisioner.provision(cluster.key, cluster.objects())
    after = await cluster.get("services")

    assert [item["port"] for item in after["spec"]["ports"]] == [80, 8080]
    assert after["spec"]["ports"][0]["nodePort"] == before["spec"]["ports"][0]["nodePort"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]


async def test_drift_is_repaired_and_what_others_added_stays(cluster: Cluster) -> None:
    await cluster.provisioner.provision(cluster.key, cluster.objects())
    live = await cluster.get("deployments")
    theirs = {"metadata": {**_name(live), "annotations": {"theirs": "x"}}, "spec": {"replicas": 7}}
    head = {"apiVersion": "apps/v1", "kind": "Deployment"}
    by_somebody = {"fieldManager": "somebody", "force": "true"}
    await cluster.api.request("PATCH", _path(live), {**head, **theirs}, query=by_somebody)

    found = await cluster.provisioner.provision(cluster.key, cluster.objects())

    repaired = await cluster.get("deployments")
    assert (repaired["spec"]["replicas"], found.changed) == (2, ("Deployment",))
    assert repaired["metadata"]["annotations"]["theirs"] == "x"


async def test_replicas_stay_when_an_autoscaler_takes_over_and_are_set_when_it_goes(cluster: Cluster) -> None:
    await cluster.provisioner.provision(cluster.key, cluster.objects(replicas=4))
    scaled = cluster.objects(autoscaling={"maxReplicas": 9})
    await cluster.provisioner.provision(cluster.key, scaled)
    assert (await cluster.get("deployments"))["spec"]["replicas"] == 4

    live = await cluster.get("deployments")
    await cluster.api.request("PUT", f"{_path(live)}/scale", {"metadata": _name(live), "spec": {"replicas": 6}})
    await cluster.provisioner.provision(cluster.key, scaled)
    assert (await cluster.get("deployments"))["spec"]["replicas"] == 6

    found = await cluster.provisioner.provision(cluster.key, cluster.objects(replicas=3))
    assert (await cluster.get("deployments"))["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler" in found.changed


async def test_immutable_field_is_named_and_the_rest_goes_on(cluster: Cluster) -> None:
    await cluster.provisioner.provision(cluster.key, cluster.objects(service={"loadBalancerClass": "a.example/a"}))

    changed = cluster.objects(service={"loadBalancerClass": "b.example/b"}, replicas=3)
    found = await cluster.provisioner.provision(cluster.key, changed)

    (problem,) = found.problems
    assert "spec.loadBalancerClass" in problem
    assert (await cluster.get("deployments"))["spec"]["replicas"] == 3


async def test_mistake_that_only_the_api_server_sees_is_named(cluster: Cluster) -> None:
    wrong = cluster.objects(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}})
    found = await cluster.provisioner.provision(cluster.key, wrong)

    (problem,) = found.problems
    assert problem.startswith("Deployment ")
    assert "nodeAffinity" in problem


async def test_service_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    theirs = next(item for item in cluster.objects() if item["kind"] == "Service")
    metadata = {name: theirs["metadata"][name] for name in ("name", "namespace")}
    spec = {"ports": [{"port": 1}], "selector": {"a": "b"}}
    made = await cluster.api.request(
        "POST", f"/api/v1/namespaces/{cluster.key.namespace}/services", {"metadata": metadata, "spec": spec}
    )

    found = await cluster.provisioner.provision(cluster.key, cluster.objects())

    (problem,) = found.problems
    assert problem.endswith(f"exists and does not belong to Gateway {cluster.key.name}")
    assert (await cluster.get("services"))["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_pods_fit_the_restricted_standard(cluster: Cluster) -> None:
    await cluster.provisioner.provision(cluster.key, cluster.objects())
    template = (await cluster.get("deployments"))["spec"]["template"]

    made = await restricted_pod(cluster.api, template, namespace=cluster.key.namespace)

    assert made["spec"]["serviceAccountName"].startswith("infergate-")


async def test_everything_goes_with_the_gateway(cluster: Cluster) -> None:
    try:
        await cluster.api.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
    except ApiMissing:
        pytest.skip("needs a cluster with controllers: there is no garbage collector")
    objects = cluster.objects(autoscaling={"maxReplicas": 5})
    await cluster.provisioner.provision(cluster.key, objects)
    gateways = f"/apis/gateway.networking.k8s.io/v1/namespaces/{cluster.key.namespace}/gateways"

    await cluster.api.request("DELETE", f"{gateways}/{cluster.key.name}")

    left = [COLLECTIONS[item["kind"]].format(cluster.key.namespace) for item in objects]
    async with asyncio.timeout(60):
        while left:
            found = await cluster.api.request("GET", left[0])
            if not [item for item in found["items"] if item["metadata"]["name"].startswith("infergate-")]:
                del left[0]
            await asyncio.sleep(0.05)


def _name(item: Json) -> Json:
    return {name: item["metadata"][name] for name in ("name", "namespace")}


def _path(deployment: Json) -> str:
    metadata = deployment["metadata"]
    return f"/apis/apps/v1/namespaces/{metadata['namespace']}/deployments/{metadata['name']}"
