"""Pods that are replaced while requests come: those of a pool, and those of a data plane."""

import asyncio

import httpx

from tests.cluster.end_to_end.conftest import Cluster
from tests.cluster.end_to_end.load import load, until
from tests.cluster.end_to_end.streams import TOKENS, Stream

STREAMS = 200


async def test_pods_of_a_pool_are_replaced_without_a_failed_request(cluster: Cluster) -> None:
    before = await _names(cluster, "app=chat")
    async with load(await cluster.target("models", "chat.example", model="chat")) as running:
        await cluster.kubectl("rollout", "restart", "deployment/chat")
        await cluster.kubectl("rollout", "status", "deployment/chat", "--timeout=120s")

        async def are_gone() -> bool:
            return not before & await _names(cluster, "app=chat")

        await until(are_gone, seconds=30, what="the former pods are gone")
        await running.wait(100)

    assert running.failures == []
    served_by = {name.removesuffix("-0") for name in running.seen("x-simulated-pod", last=60)}
    assert served_by == await _names(cluster, "app=chat")


async def test_data_plane_is_replaced_and_streams_end_by_themselves(cluster: Cluster) -> None:
    before = await _names(cluster, "gateway.networking.k8s.io/gateway-name=models")
    target = await cluster.target("models", "slow.example", model="slow")
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as http:
        streams = [Stream(target) for _ in range(STREAMS)]
        reading = [asyncio.create_task(stream.read(http)) for stream in streams]
        await until(lambda: all(stream.tokens for stream in streams), seconds=30, what="all streams are open")

        async with load(await cluster.target("models", "chat.example", model="chat"), rate=10) as running:
            patch = '{"spec": {"podAnnotations": {"replaced": "once"}}}'
            await cluster.kubectl("patch", "gatewayparameters", "models", "--type=merge", "--patch", patch)

            async def are_leaving() -> bool:
                pods = await cluster.objects("Pod", labels="gateway.networking.k8s.io/gateway-name=models")
                staying = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
                return len(staying) == len(before) and not before & staying

            await until(are_leaving, seconds=60, what="the former pods are told to end")
            open_then = sum(1 for stream in streams if not stream.is_done)
            await asyncio.wait(reading, timeout=90)

            async def are_gone() -> bool:
                return not before & await _names(cluster, "gateway.networking.k8s.io/gateway-name=models")

            await until(are_gone, seconds=30, what="the former pods are gone")

    assert open_then > STREAMS / 2
    assert [stream.problem for stream in streams if stream.problem] == []
    assert {(stream.tokens, stream.is_done) for stream in streams} == {(TOKENS, True)}
    assert running.failures == []


async def _names(cluster: Cluster, labels: str) -> set[str]:
    return {str(pod["metadata"]["name"]) for pod in await cluster.objects("Pod", labels=labels)}
