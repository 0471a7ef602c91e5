"""Control plane or API server are killed, or a leader is lost: data planes go on as if nothing had happened."""

from typing import Final

from controller.errors import ApiError
from tests.cluster.end_to_end.api_server import api_server
from tests.cluster.end_to_end.conftest import Cluster, Json
from tests.cluster.end_to_end.load import client, load, until

AT_ONCE: Final = ("--grace-period=0", "--force", "--wait=false")
"""A kill: the API server forgets the pod, and the kubelet sends SIGKILL."""
OF_DATA_PLANES: Final = ("Deployment", "ReplicaSet", "Pod", "Service", "ServiceAccount", "ConfigMap")


async def test_killed_control_plane_comes_back_and_no_request_fails(cluster: Cluster) -> None:
    before, killed = await _standing(cluster), {pod["metadata"]["name"] for pod in await cluster.control_planes()}
    chat = await cluster.target("models", "chat.example", model="chat")
    secure = await cluster.target("secure", "secure.example", scheme="https")
    async with load(chat) as models, load(secure) as plain:
        await cluster.kubectl("delete", "pod", *killed, *AT_ONCE, namespace=cluster.release.control_plane)

        async def is_back() -> bool:
            names = {pod["metadata"]["name"] for pod in await cluster.control_planes() if _is_ready(pod)}
            return len(names) == len(killed) and not names & killed

        await until(is_back, seconds=60, what="the control plane is back")
        await _serves_a_new_route(cluster, "after-kill", seconds=30)
        await models.wait(20)

    assert models.failures == []
    assert plain.failures == []
    assert await _standing(cluster) == before


async def test_another_takes_over_from_a_lost_leader_and_deletes_nothing(cluster: Cluster) -> None:
    before, lost = await _standing(cluster), await cluster.leader()
    async with load(await cluster.target("models", "chat.example", model="chat")) as running:
        await cluster.kubectl("delete", "pod", lost, *AT_ONCE, namespace=cluster.release.control_plane)

        async def is_led() -> bool:
            return await cluster.leader() not in ("", lost)

        await until(is_led, seconds=20, what="another leads")
        await _serves_a_new_route(cluster, "after-loss", seconds=10)

    assert running.failures == []
    assert await _standing(cluster) == before


async def test_restarted_api_server_fails_no_request_and_changes_are_served_after_it(cluster: Cluster) -> None:
    server, before = api_server(), await _standing(cluster)
    restarts = [_restarts(pod) for pod in await cluster.control_planes()]
    chat = await cluster.target("models", "chat.example", model="chat")
    secure = await cluster.target("secure", "secure.example", scheme="https")
    async with load(chat) as models, load(secure) as plain:
        server.kill()
        try:
            await models.wait(100)  # five seconds without an API server
        finally:
            server.start()
        await until(lambda: _answers(cluster), seconds=30, what="the API server answers")
        await _serves_a_new_route(cluster, "after-restart", seconds=30)
        await models.wait(20)

    assert models.failures == []
    assert plain.failures == []
    assert await _standing(cluster) == before
    assert [_restarts(pod) for pod in await cluster.control_planes()] == restarts


async def _answers(cluster: Cluster) -> bool:
    """Whether the API server knows our kinds again."""
    try:
        return bool(await cluster.objects("HTTPRoute"))
    except ApiError:
        return False


async def _serves_a_new_route(cluster: Cluster, name: str, *, seconds: float) -> None:
    """Creates one and waits until it answers, and until its status says so, which only a leader writes."""
    host = f"{name}.example"
    rules = [{"backendRefs": [{"name": "blue", "port": 80}]}]
    await cluster.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": rules},
        }
    )
    target = await cluster.target("web", host)
    async with client() as http:

        async def answers() -> bool:
            return (await target.ask(http)).status_code == 200

        await until(answers, seconds=seconds, what=f"route {name} answers")

    async def is_accepted() -> bool:
        parents = (await cluster.get("HTTPRoute", name)).get("status", {}).get("parents", [])
        conditions = [condition for parent in parents for condition in parent["conditions"]]
        return ("Accepted", "True") in {(item["type"], item["status"]) for item in conditions}

    await until(is_accepted, seconds=seconds, what=f"route {name} is accepted")


async def _standing(cluster: Cluster) -> list[tuple[object, ...]]:
    """Which objects data planes have, what these were told, how often pods started again, and what is said of them."""
    found: list[tuple[object, ...]] = []
    for kind in OF_DATA_PLANES:
        for item in await cluster.objects(kind, labels="app.kubernetes.io/component=data-plane"):
            metadata, spec = item["metadata"], item.get("spec", {})
            told = (metadata.get("generation", 0), spec.get("clusterIP"), spec.get("ports"))
            found.append((kind, metadata["name"], metadata["uid"], *told, _restarts(item)))
    for gateway in await cluster.objects("Gateway"):
        status = gateway["status"]
        since = [(item["type"], item["status"], item["lastTransitionTime"]) for item in status["conditions"]]
        found.append(("Gateway", gateway["metadata"]["name"], status["addresses"], since))
    return found


def _restarts(item: Json) -> int:
    return sum(status["restartCount"] for status in item.get("status", {}).get("containerStatuses", []))


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return ("Ready", "True") in {(item["type"], item["status"]) for item in conditions}
