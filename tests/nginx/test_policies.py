"""What a PickerPolicy does to the requests of a pool, live."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, until
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
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/", content=b"2", timeout=0.3)
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
