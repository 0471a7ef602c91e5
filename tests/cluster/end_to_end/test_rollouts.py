"""Pods that are replaced while requests come: those of a pool, and those of a data plane."""

import asyncio
from dataclasses import dataclass

import httpx
import msgspec

from tests.cluster.end_to_end.conftest import Cluster
from tests.cluster.end_to_end.load import Target, load, question, until

STREAMS = 200
TOKENS = 60
"""Of each stream, two a second."""


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
        streams = [_Stream() for _ in range(STREAMS)]
        reading = [asyncio.create_task(stream.read(http, target)) for stream in streams]
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


@dataclass
class _Stream:
    """One answer as it comes."""

    tokens: int = 0
    is_done: bool = False
    problem: str = ""

    async def read(self, http: httpx.AsyncClient, target: Target) -> None:
        body = question(target.model, tokens=TOKENS, stream=True, ignore_eos=True)
        try:
            headers = {"host": target.host}
            async with http.stream("POST", f"{target.url}/v1/chat/completions", headers=headers, json=body) as answer:
                if answer.status_code != 200:
                    self.problem = f"status {answer.status_code}"
                    return
                async for line in answer.aiter_lines():
                    self._take(line)
        except httpx.HTTPError as problem:
            self.problem = repr(problem)

    def _take(self, line: str) -> None:
        text = line.removeprefix("data: ")
        if text == "[DONE]":
            self.is_done = True
        elif text and msgspec.json.decode(text)["choices"][0].get("delta", {}).get("content"):
            self.tokens += 1


async def _names(cluster: Cluster, labels: str) -> set[str]:
    return {str(pod["metadata"]["name"]) for pod in await cluster.objects("Pod", labels=labels)}
