"""What a PickerPolicy does to the requests of a pool, live."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, eventually, until
from tests.nginx.resources import Json, pool, route, rule, to_pool
from tests.nginx.servers import Backend, Request, describe, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


class Hall:
    """Holds answers back until the door is opened."""

    def __init__(self) -> None:
        self.door = asyncio.Event()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        await self.door.wait()
        await describe(request, writer)


@pytest_asyncio.fixture(loop_scope="module")
async def hall() -> Hall:
    return Hall()


@pytest_asyncio.fixture(loop_scope="module")
async def backend(gateway: Gateway, hall: Hall) -> AsyncIterator[Backend]:
    async with serve(hall.answer, name="one") as backend:
        await gateway.apply("routes.yaml", pool("gpu", backend.address), route("all", rule(to_pool("gpu"))))
        await gateway.knows("default/gpu", backend.address)
        yield backend
        hall.door.set()


def _policy(**spec: object) -> Json:
    return {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "PickerPolicy",
        "metadata": {"name": "gpu"},
        "spec": {"targetRefs": [{"name": "gpu"}], **spec},
    }


def _one_at_a_time(**band: object) -> Json:
    return _policy(
        config={
            "plugins": [{"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}}],
            "flowControl": {
                "saturationDetector": {"pluginRef": "concurrency-detector"},
                "defaultPriorityBand": band,
            },
        }
    )


async def _waiting(gateway: Gateway, count: int) -> bool:
    name = 'infergate_flow_control_queue_size{pool="default/gpu"'
    return sum(value for key, value in (await gateway.metrics()).items() if key.startswith(name)) == count


async def test_requests_of_a_saturated_pool_wait_and_those_beyond_the_queue_are_refused(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, hall: Hall
) -> None:
    await gateway.apply("policy.yaml", _one_at_a_time(maxRequests=1))
    first = asyncio.create_task(http.post("/", content=b"1"))
    await until(lambda: len(backend.requests) == 1)
    others = [asyncio.create_task(http.post("/", content=b"2")) for _ in range(2)]
    done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    refused = done.pop().result()
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert len(backend.requests) == 1
    hall.door.set()
    answers = [await first, *[await other for other in others]]
    assert Counter(answer.status_code for answer in answers) == {200: 2, 429: 1}
    assert len(backend.requests) == 2


async def test_client_that_hangs_up_leaves_the_queue(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, hall: Hall
) -> None:
    await gateway.apply("policy.yaml", _one_at_a_time(maxRequests=1))
    first = asyncio.create_task(http.post("/", content=b"1"))
    await until(lambda: len(backend.requests) == 1)
    hanging = asyncio.create_task(http.post("/", content=b"2"))
    await eventually(lambda: _waiting(gateway, 1))
    hanging.cancel()
    await eventually(lambda: _waiting(gateway, 0))
    hall.door.set()
    assert (await first).status_code == 200
    await gateway.idle()
    assert len(backend.requests) == 1


async def test_policy_with_a_mistake_leaves_the_pool_as_it_was(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, hall: Hall
) -> None:
    hall.door.set()
    await gateway.apply("policy.yaml", _policy(config={"plugins": [{"type": "best-scorer"}]}))
    (ancestor,) = gateway.status("PickerPolicy", "gpu")["ancestors"]
    (condition,) = ancestor["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Accepted", "False", "Invalid")
    assert "best-scorer" in condition["message"]
    assert (await http.post("/", content=b"x")).status_code == 200


async def test_requests_to_a_pool_scaled_to_zero_wait_for_an_endpoint(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, hall: Hall
) -> None:
    hall.door.set()
    to_gpu = route("all", rule(to_pool("gpu")))
    policy = _policy(config={"flowControl": {"noEndpointRequestTTL": "30s"}})
    await gateway.apply("policy.yaml", policy)
    await gateway.apply("routes.yaml", pool("gpu"), to_gpu)
    await gateway.knows("default/gpu")
    waiting = asyncio.create_task(http.post("/", content=b"x"))
    await eventually(lambda: _waiting(gateway, 1))
    await gateway.apply("routes.yaml", pool("gpu", backend.address), to_gpu)
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("ttl", ["200ms", None])
async def test_no_endpoint_is_503_after_the_stated_time(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, ttl: str | None
) -> None:
    config = {"flowControl": {"noEndpointRequestTTL": ttl}} if ttl else {}
    await gateway.apply("policy.yaml", _policy(config=config))
    await gateway.apply("routes.yaml", pool("gpu"), route("all", rule(to_pool("gpu"))))
    await gateway.knows("default/gpu")
    began = time.monotonic()
    refused = await http.post("/", content=b"x")
    assert time.monotonic() - began >= (0.2 if ttl else 0.0)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
    assert refused.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert int(refused.headers["retry-after"]) >= 1
    assert len(backend.requests) == 0


async def test_detector_that_a_profile_names_is_a_filter(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend, hall: Hall
) -> None:
    plugins = [{"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}}]
    profiles = [{"name": "default", "plugins": [{"pluginRef": "concurrency-detector"}]}]
    await gateway.apply("policy.yaml", _policy(config={"plugins": plugins, "schedulingProfiles": profiles}))
    first = asyncio.create_task(http.post("/", content=b"1"))
    await until(lambda: len(backend.requests) == 1)
    refused = await http.post("/", content=b"2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "endpoints_busy")
    hall.door.set()
    assert (await first).status_code == 200


async def test_labels_that_no_pod_has_are_503(gateway: Gateway, http: httpx.AsyncClient, backend: Backend) -> None:
    plugins = [{"type": "label-selector-filter", "parameters": {"matchLabels": {"gpu": "none"}}}]
    await gateway.apply("policy.yaml", _policy(config={"plugins": plugins}))
    refused = await http.post("/", content=b"1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "endpoints_filtered_out")
    assert "retry-after" in refused.headers
