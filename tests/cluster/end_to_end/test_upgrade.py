"""The release is upgraded while requests come and streams run."""

import asyncio

import httpx

from tests.cluster.end_to_end.conftest import Cluster
from tests.cluster.end_to_end.load import load, until
from tests.cluster.end_to_end.streams import TOKENS, Stream

STREAMS = 50
OF_ALL = "app.kubernetes.io/component=data-plane"
OF_STREAMS = "gateway.networking.k8s.io/gateway-name=models"


async def test_upgrade_fails_no_request_and_streams_end_by_themselves(cluster: Cluster) -> None:
    control_planes = {pod["metadata"]["name"] for pod in await cluster.control_planes()}
    before = await _data_planes(cluster, OF_ALL)
    chat = await cluster.target("models", "chat.example", model="chat")
    secure = await cluster.target("secure", "secure.example", scheme="https")
    slow = await cluster.target("models", "slow.example", model="slow")
    http = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), trust_env=False, timeout=60)
    async with http, load(chat) as models, load(secure) as plain:
        upgrading = asyncio.create_task(cluster.upgrade())
        await until(lambda: _is_begun(cluster, before), seconds=60, what="the first pod is to be replaced")
        streams = [Stream(slow) for _ in range(STREAMS)]
        reading = [asyncio.create_task(stream.read(http)) for stream in streams]
        await until(lambda: all(stream.tokens for stream in streams), seconds=30, what="all streams are open")

        await until(lambda: _are_replaced(cluster, OF_STREAMS, before), seconds=60, what="their pods are told to end")
        open_then = sum(1 for stream in streams if not stream.is_done)
        await upgrading
        await until(lambda: _are_replaced(cluster, OF_ALL, before), seconds=60, what="every data plane is replaced")
        await asyncio.wait(reading, timeout=60)
        await models.wait(20)

    assert not control_planes & {pod["metadata"]["name"] for pod in await cluster.control_planes()}
    assert open_then > STREAMS / 2
    assert [stream.problem for stream in streams if stream.problem] == []
    assert {(stream.tokens, stream.is_done) for stream in streams} == {(TOKENS, True)}
    assert models.failures == []
    assert plain.failures == []


async def _is_begun(cluster: Cluster, before: set[str]) -> bool:
    """Whether there is a pod that is to take the place of another."""
    return bool(await _data_planes(cluster, OF_STREAMS) - before)


async def _are_replaced(cluster: Cluster, labels: str, before: set[str]) -> bool:
    staying = await _data_planes(cluster, labels)
    return bool(staying) and not before & staying


async def _data_planes(cluster: Cluster, labels: str) -> set[str]:
    """Pods that do not end."""
    pods = await cluster.objects("Pod", labels=labels)
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
