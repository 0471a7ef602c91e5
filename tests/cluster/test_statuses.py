"""Statuses on a real API server, with the definitions of the specifications."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from controller.kube import MERGE, Api
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.provider.kubernetes.statuses import StatusWriter
from controller.resources.gateway_api import CONTROLLER_NAME, Gateway, HTTPRoute
from controller.resources.inference import InferencePool
from controller.resources.meta import Key
from controller.status.types import StatusUpdate
from tests.cluster.objects import GATEWAY_API, Json, gateway, pool, route

FOREIGN = {
    "type": "example.com/Own",
    "status": "True",
    "reason": "Own",
    "message": "",
    "lastTransitionTime": "2025-01-01T00:00:00Z",
}


def condition(type_: str = "Accepted", *, reason: str = "Accepted") -> Json:
    return {"type": type_, "status": "True", "reason": reason, "message": ""}


def entry(*conditions: Json) -> Json:
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    return {"parentRef": parent, "controllerName": CONTROLLER_NAME, "conditions": list(conditions)}


def gateway_status(*listeners: str, reason: str = "Accepted") -> Json:
    return {
        "conditions": [condition(reason=reason), condition("Programmed", reason="Programmed")],
        "listeners": [
            {"name": name, "attachedRoutes": 0, "supportedKinds": [], "conditions": [condition()]} for name in listeners
        ],
        "addresses": [],
    }


@asynccontextmanager
async def writing(api: Api, namespace: str) -> AsyncIterator[StatusWriter]:
    provider = KubernetesProvider(api, namespaces=[namespace], on_seen=lambda key: writer.look_at(key))
    writer = StatusWriter(
        api,
        held=provider.held,
        controller_name=CONTROLLER_NAME,
        is_leader=lambda: True,
        outage=provider.outage,
    )
    async with aclosing(provider.snapshots()) as snapshots:
        await anext(snapshots)
        task = asyncio.ensure_future(writer.run())
        try:
            yield writer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def becomes(api: Api, path: str, holds: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(10):
        while True:
            found = await api.request("GET", path)
            if holds(found.get("status") or {}):
                return found
            await asyncio.sleep(0.02)


def reasons(status: Json) -> dict[str, str]:
    return {item["type"]: item["reason"] for item in status.get("conditions", [])}


async def test_gateway_status_leaves_conditions_of_others(api: Api, namespace: str) -> None:
    path = f"{GATEWAY_API}/namespaces/{namespace}/gateways"
    await api.request("POST", path, gateway("edge"))
    key = Key(Gateway.group, "Gateway", namespace, "edge")
    async with writing(api, namespace) as writer:
        writer.want([StatusUpdate(key, 1, gateway_status("http", "old"))])
        await becomes(api, f"{path}/edge", lambda status: reasons(status).get("Programmed") == "Programmed")
        own = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "status": {"conditions": [FOREIGN]}}
        await api.request("PATCH", f"{path}/edge/status", own, query={"fieldManager": "other"})
        writer.want([StatusUpdate(key, 1, gateway_status("http", reason="ListenersNotValid"))])
        found = await becomes(api, f"{path}/edge", lambda status: len(status["listeners"]) == 1)
    assert reasons(found["status"]) == {
        "Accepted": "ListenersNotValid",
        "Programmed": "Programmed",
        "example.com/Own": "Own",
    }
    managers = {item["manager"] for item in found["metadata"]["managedFields"] if item.get("subresource") == "status"}
    assert managers == {"infergate", "other"}
    own["status"] = {"conditions": []}
    found = await api.request("PATCH", f"{path}/edge/status", own, query={"fieldManager": "other"})
    assert "example.com/Own" not in reasons(found["status"])


async def test_condition_of_ours_that_another_manager_left_is_taken_out(api: Api, namespace: str) -> None:
    path = f"{GATEWAY_API}/namespaces/{namespace}/gateways"
    await api.request("POST", path, gateway("edge"))
    left = {**FOREIGN, "type": "PartiallyInvalid"}
    await api.request(
        "PATCH",
        f"{path}/edge/status",
        {"status": {"conditions": [left, FOREIGN]}},
        query={"fieldManager": "former"},
        patch=MERGE,
    )
    async with writing(api, namespace) as writer:
        writer.want([StatusUpdate(Key(Gateway.group, "Gateway", namespace, "edge"), 1, gateway_status("http"))])
        found = await becomes(
            api, f"{path}/edge", lambda status: set(reasons(status)) == {"Accepted", "Programmed", "example.com/Own"}
        )
    assert found["status"]["listeners"][0]["name"] == "http"


async def test_route_and_pool_keep_entries_of_others_and_lose_ours(api: Api, namespace: str) -> None:
    routes = f"{GATEWAY_API}/namespaces/{namespace}/httproutes"
    pools = f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace}/inferencepools"
    await api.request("POST", routes, route("chat"))
    await api.request("POST", pools, pool("gpu"))
    theirs = {"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": [FOREIGN]}
    for path in (f"{routes}/chat", f"{pools}/gpu"):
        await api.request("PATCH", f"{path}/status", {"status": {"parents": [theirs]}}, patch=MERGE)
    keys = (
        Key(HTTPRoute.group, "HTTPRoute", namespace, "chat"),
        Key(InferencePool.group, "InferencePool", namespace, "gpu"),
    )

    def controllers(status: Json) -> list[str]:
        return [item["controllerName"] for item in status.get("parents", [])]

    async with writing(api, namespace) as writer:
        writer.want([StatusUpdate(key, 1, {"parents": [entry(condition())]}) for key in keys])
        for path in (f"{routes}/chat", f"{pools}/gpu"):
            await becomes(api, path, lambda status: controllers(status) == ["example.com/other", CONTROLLER_NAME])
        writer.want([])
        for path in (f"{routes}/chat", f"{pools}/gpu"):
            await becomes(api, path, lambda status: controllers(status) == ["example.com/other"])


async def test_settled_status_is_not_written_again(api: Api, namespace: str) -> None:
    path = f"{GATEWAY_API}/namespaces/{namespace}/httproutes"
    await api.request("POST", path, route("chat"))
    key = Key(HTTPRoute.group, "HTTPRoute", namespace, "chat")
    wanted = [StatusUpdate(key, 1, {"parents": [entry(condition())]})]
    async with writing(api, namespace) as writer:
        writer.want(wanted)
        first = await becomes(api, f"{path}/chat", lambda status: bool(status.get("parents")))
    async with writing(api, namespace) as writer:
        other = Key(HTTPRoute.group, "HTTPRoute", namespace, "mark")
        writer.want([*wanted, StatusUpdate(other, 1, {"parents": [entry(condition())]})])
        await api.request("POST", path, route("mark"))
        await becomes(api, f"{path}/mark", lambda status: bool(status.get("parents")))
    second = await api.request("GET", f"{path}/chat")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
