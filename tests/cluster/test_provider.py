"""The provider on a real API server."""

from contextlib import aclosing

from controller.kube import MERGE, Api
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.resources.gateway_api import HTTPRoute
from tests.cluster.objects import GATEWAY_API, names, route, until


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
        assert change.sources == (f"HTTPRoute {namespace}/one",)
        assert change.descriptions == (f'HTTPRoute {namespace}/one: spec.hostnames[0] added: "a.example"',)
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
        assert change.sources == (f"HTTPRoute {namespace}/two",)
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
