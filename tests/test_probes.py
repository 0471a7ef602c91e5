"""What the kubelet and Prometheus are answered, over a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from controller.errors import AddressUnusable
from controller.probes import Probes


@asynccontextmanager
async def asking(*, unready: str = "", unhealthy: str = "") -> AsyncIterator[httpx.AsyncClient]:
    async def why_not_ready() -> str:
        return unready

    async def why_not_healthy() -> str:
        return unhealthy

    registry = CollectorRegistry()
    Counter("turns", "Turns of the loop.", registry=registry).inc()

    async def more() -> bytes:
        return b"others_total 2.0\n"

    probes = Probes(registry, why_not_ready=why_not_ready, why_not_healthy=why_not_healthy, more=more)
    async with (
        probes.listening("127.0.0.1:0") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5) as client,
    ):
        yield client


async def test_process_that_lacks_nothing_is_ready_and_healthy() -> None:
    async with asking() as client:
        for path in ("/readyz", "/healthz?verbose"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_each_probe_says_what_is_wrong() -> None:
    async with asking(unready="no snapshot yet", unhealthy="the loop is stuck") as client:
        ready, healthy = await client.get("/readyz"), await client.get("/healthz")
    assert (ready.status_code, ready.text) == (503, "no snapshot yet\n")
    assert (healthy.status_code, healthy.text) == (503, "the loop is stuck\n")


async def test_metrics_are_those_of_the_registry_and_more() -> None:
    async with asking() as client:
        answer = await client.get("/metrics")
    assert "turns_total 1.0\n" in answer.text
    assert answer.text.endswith("\nothers_total 2.0\n")
    assert answer.headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/readyz", 405)])
async def test_anything_else_is_refused(method: str, path: str, status: int) -> None:
    async with asking() as client:
        assert (await client.request(method, path)).status_code == status


async def test_head_has_no_body() -> None:
    async with asking() as client:
        answer = await client.head("/readyz")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_port_of_somebody_else_is_named() -> None:
    async with asking() as client:
        taken = f"127.0.0.1:{client.base_url.port}"
        with pytest.raises(AddressUnusable, match=taken):
            await _listen(taken)


async def _listen(address: str) -> None:
    async def fine() -> str:
        return ""

    async with Probes(CollectorRegistry(), why_not_ready=fine, why_not_healthy=fine).listening(address):
        await asyncio.sleep(0)
