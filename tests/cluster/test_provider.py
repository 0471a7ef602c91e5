"""The provider on a real API server."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from controller.errors import ApiMissing, ApiRefused
from controller.kube import MERGE, Api, configuration
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.resources.gateway_api import HTTPRoute
from controller.resources.meta import Resource
from controller.resources.policies import InferenceObjective
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.snapshot import Snapshot
from tests.cluster.objects import GATEWAY_API, Json, names, route, told_of, until


async def test_objects_appear_change_and_vanish(api: Api, namespace: str) -> None:
    path = f"{GATEWAY_API}/namespaces/{namespace}/httproutes"
    async with aclosing(KubernetesProvider(api).snapshots()) as snapshots:
        first, _ = await anext(snapshots)
        assert namespace in names(first, kind="Namespace")
        await api.request("POST", path, route("one"))
        await until(snapshots, lambda found: names(found, kind="HTTPRoute", namespace=namespace) == ["one"])
        await api.request("PATCH", f"{path}/one", {"spec": {"hostnames": ["a.example"]}}, patch=MERGE)
        _, change = await until(
            snapshots, lambda found: any(item.spec.hostnames == ("a.example",) for item in found.of(HTTPRoute))
        )
        assert told_of(namespace, change.sources) == [f"HTTPRoute {namespace}/one"]
        (told,) = told_of(namespace, change.descriptions)
        assert told == f'HTTPRoute {namespace}/one: spec.hostnames[0] added: "a.example"'
        await api.request("DELETE", f"{path}/one")
        await until(snapshots, lambda found: names(found, kind="HTTPRoute", namespace=namespace) == [])


async def test_status_alone_gives_no_snapshot_and_is_held(api: Api, namespace: str) -> None:
    path = f"{GATEWAY_API}/namespaces/{namespace}/httproutes"
    await api.request("POST", path, route("one"))
    provider = KubernetesProvider(api)
    async with aclosing(provider.snapshots()) as snapshots:
        first, _ = await anext(snapshots)
        key = next(item.key for item in first.of(HTTPRoute) if item.metadata.namespace == namespace)
        parent = {
            "parentRef": {"name": "edge"},
            "controllerName": "example.com/other",
            "conditions": [
                {
                    "type": "Accepted",
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "lastTransitionTime": "2025-01-01T00:00:00Z",
                }
            ],
        }
        await api.request("PATCH", f"{path}/one/status", {"status": {"parents": [parent]}}, patch=MERGE)
        await api.request("POST", path, route("two"))
        _, change = await until(snapshots, lambda found: len(names(found, kind="HTTPRoute", namespace=namespace)) == 2)
        assert told_of(namespace, change.sources) == [f"HTTPRoute {namespace}/two"]
        held = provider.held(key)
        assert held is not None
        assert held.status is not None
        assert [item["controllerName"] for item in held.status["parents"]] == ["example.com/other"]


async def test_only_given_namespaces_are_read(api: Api, namespace: str) -> None:
    await api.request("POST", f"{GATEWAY_API}/namespaces/{namespace}/httproutes", route("inside"))
    await api.request("POST", f"{GATEWAY_API}/namespaces/default/httproutes", route("outside"))
    try:
        async with aclosing(KubernetesProvider(api, namespaces=[namespace]).snapshots()) as snapshots:
            first, _ = await anext(snapshots)
        assert [item.key.path for item in first.of(HTTPRoute)] == [f"{namespace}/inside"]
    finally:
        await api.request("DELETE", f"{GATEWAY_API}/namespaces/default/httproutes/outside")


def definition(group: str, *, version: str, kind: str) -> Json:
    """A definition of a kind that the provider reads, as loose as it may be."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (InferenceObjective, {"priority": 10}),
        (InferenceModelRewrite, {"rules": [{"targets": [{"modelRewrite": "m"}]}]}),
    ],
)
async def test_kind_is_read_once_its_definition_is_installed_until_it_is_removed(
    api: Api, namespace: str, model: type[Resource], spec: Json
) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    group, version, kind = model.group, model.versions[0], model.__name__
    plural = f"{kind.lower()}s"
    resource = {
        "apiVersion": f"{group}/{version}",
        "kind": kind,
        "metadata": {"name": "urgent"},
        "spec": {"poolRef": {"name": "gpu"}, **spec},
    }

    def read(snapshot: Snapshot) -> list[str]:
        return names(snapshot, kind=kind, namespace=namespace)

    if await is_there(api, f"{definitions}/{plural}.{group}"):
        pytest.skip(f"the cluster has a definition of {kind} in {group} already")
    path = f"/apis/{group}/{version}/namespaces/{namespace}/{plural}"
    async with aclosing(KubernetesProvider(api).snapshots()) as snapshots:
        await anext(snapshots)
        await api.request("POST", definitions, definition(group, version=version, kind=kind))
        try:
            await served(api, path)
            await api.request("POST", path, resource)
            await until(snapshots, lambda found: read(found) == ["urgent"])
        finally:
            await api.request("DELETE", f"{definitions}/{plural}.{group}")
        await until(snapshots, lambda found: read(found) == [])


async def served(api: Api, path: str) -> None:
    async with asyncio.timeout(10):
        while True:
            if await is_there(api, path):
                return
            await asyncio.sleep(0.05)


async def is_there(api: Api, path: str) -> bool:
    try:
        await api.request("GET", path)
    except ApiRefused as problem:  # 429 while the API server makes room for a new kind
        if isinstance(problem, ApiMissing) or problem.code == 429:
            return False
        raise
    return True


RULES = [
    {
        "apiGroups": [
            "gateway.networking.k8s.io",
            "inference.networking.k8s.io",
            "infergate.dev",
            "discovery.k8s.io",
            "",
        ],
        "resources": ["*"],
        "verbs": ["list", "watch"],
    }
]


async def test_role_for_one_namespace_is_enough(api: Api, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    await api.request("POST", f"{core}/serviceaccounts", {"metadata": {"name": "reader"}})
    await api.request("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": RULES})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    binding = {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role}
    await api.request("POST", f"{rbac}/rolebindings", binding)
    await api.request("POST", f"{GATEWAY_API}/namespaces/{namespace}/httproutes", route("inside"))
    answer = await api.request("POST", f"{core}/serviceaccounts/reader/token", {"spec": {}})
    settings = await configuration(Path(os.environ["KUBECONFIG"]))
    settings.cert_file = settings.key_file = None
    settings.api_key = {"BearerToken": f"Bearer {answer['status']['token']}"}
    async with (
        Api(settings, timeout=10) as reader,
        aclosing(KubernetesProvider(reader, namespaces=[namespace]).snapshots()) as snapshots,
    ):
        first, _ = await asyncio.wait_for(anext(snapshots), 20)
        assert [item.key.path for item in first.of(HTTPRoute)] == [f"{namespace}/inside"]
        await api.request("POST", f"{GATEWAY_API}/namespaces/{namespace}/httproutes", route("later"))
        await until(snapshots, lambda found: len(names(found, kind="HTTPRoute", namespace=namespace)) == 2)
    denied = [record.__dict__["resources"] for record in caplog.records if "cannot be read" in record.message]
    assert sorted(denied) == ["GatewayClass.gateway.networking.k8s.io", "Namespace"]
