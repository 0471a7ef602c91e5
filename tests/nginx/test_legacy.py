"""Pools, models and objectives of the former group, as clients meet them."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, eventually, until
from tests.nginx.resources import Json, pool, route, rule, to_pool
from tests.nginx.servers import Backend, Request, describe, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

GROUP = "inference.networking.x-k8s.io"


def _resource(kind: str, name: str, **spec: object) -> Json:
    return {"apiVersion": f"{GROUP}/v1alpha2", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _legacy_pool(name: str) -> Json:
    return _resource("InferencePool", name, selector={"nobody": "has-this"}, targetPortNumber=8000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(gateway: Gateway) -> AsyncIterator[tuple[asyncio.Event, Backend]]:
    """What lets answers through, and the pod of a legacy pool: one request at a time, the others wait."""
    opened = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await opened.wait()
        await describe(request, writer)

    detector = {"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}}
    policy = {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "PickerPolicy",
        "metadata": {"name": "gpu"},
        "spec": {
            "targetRefs": [{"group": GROUP, "name": "gpu"}],
            "config": {
                "plugins": [detector],
                "flowControl": {"saturationDetector": {"pluginRef": "concurrency-detector"}},
            },
        },
    }
    mine = {"name": "gpu", "group": GROUP}
    async with serve(answer) as pod:
        _, *slices = pool("gpu", pod.address)
        await gateway.apply(
            "routes.yaml",
            _legacy_pool("gpu"),
            slices,
            policy,
            *(_resource("InferenceModel", name.lower(), modelName=name.lower(), criticality=name, poolRef=mine)
              for name in ("Critical", "Standard", "Sheddable")),
            _resource("InferenceObjective", "batch", priority=-1, poolRef=mine),
            {**_resource("InferenceObjective", "urgent", priority=20, poolRef=mine), "apiVersion": "llm-d.ai/v1alpha2"},
            _resource("InferenceObjective", "of-another-pool", priority=-1, poolRef={"name": "other"}),
            route("all", rule(to_pool("gpu", group=GROUP))),
        )  # fmt: skip
        await gateway.knows("default/gpu:v1alpha2", pod.address)
        yield opened, pod
        opened.set()


async def _ask(http: httpx.AsyncClient, model: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post("/v1/chat/completions", json={"model": model}, headers=named)


async def _waiting(gateway: Gateway, number: int) -> None:
    """Waits until so many requests wait in the picker."""

    async def waits() -> bool:
        sizes = (await gateway.metrics()).items()
        return sum(value for name, value in sizes if name.startswith("infergate_flow_control_queue_size")) == number

    await eventually(waits)


async def test_criticality_and_objectives_decide_who_is_refused_and_who_goes_first(
    gateway: Gateway, http: httpx.AsyncClient, door: tuple[asyncio.Event, Backend]
) -> None:
    opened, pod = door
    asked = [asyncio.create_task(_ask(http, "first"))]
    await until(lambda: len(pod.requests) == 1)
    assert (await _ask(http, "sheddable")).status_code == 429
    for spelling in ("x-llm-d-inference-objective", "x-gateway-inference-objective"):
        assert (await _ask(http, "critical", **{spelling: "batch"})).status_code == 429
    order = [("standard", {}), ("critical", {}), ("sheddable", {"x_gateway_inference_objective": "urgent"})]
    for number, (model, headers) in enumerate([*order, ("other", {"x_llm_d_inference_objective": "of-another-pool"})]):
        asked.append(asyncio.create_task(_ask(http, model, **headers)))
        await _waiting(gateway, number + 1)
    opened.set()
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    models = [json.loads(request.body)["model"] for request in pod.requests]
    assert models == ["first", "sheddable", "critical", "standard", "other"]


async def test_pools_of_one_name_are_told_apart_by_their_group(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with serve(name="present") as pod:
        await gateway.apply(
            "both.yaml",
            pool("both", pod.address),
            _legacy_pool("both"),
            route("both", rule(to_pool("both"), path="/new"), rule(to_pool("both", group=GROUP), path="/old")),
            _resource("InferenceModel", "lost", modelName="m", poolRef={"name": "nowhere"}),
        )
        await gateway.knows("default/both", pod.address)
        await gateway.knows("default/both:v1alpha2", pod.address)
        answers = [await http.post(path, content=b"x") for path in ("/new", "/old")]
    assert [answer.json()["server"] for answer in answers] == ["present", "present"]
    pools = [(await gateway.logged(answer.headers["x-request-id"]))["pool"] for answer in answers]
    assert pools == ["default/both", "default/both:v1alpha2"]
    assert gateway.status("InferenceModel", "lost")["conditions"][0]["reason"] == "TargetNotFound"


async def test_targets_of_a_model_share_its_requests_by_weight(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """As the documentation of the former API divides food-review between two adapters."""
    targets = [{"name": "food-review-1", "weight": 90}, {"name": "food-review-2", "weight": 10}]
    model = {"modelName": "food-review", "targetModels": targets, "poolRef": {"name": "food", "group": GROUP}}
    async with serve() as pod:
        _, *slices = pool("food", pod.address)
        await gateway.apply(
            "food.yaml",
            _legacy_pool("food"),
            slices,
            _resource("InferenceModel", "food-review", **model),
            route("food", rule(to_pool("food", group=GROUP)), hostnames=["food.example"]),
        )
        await gateway.knows("default/food:v1alpha2", pod.address)
        for _ in range(100):
            asked = await http.post(
                "/v1/chat/completions", json={"model": "food-review"}, headers={"host": "food.example"}
            )
            assert asked.status_code == 200
        given = [json.loads(request.body)["model"] for request in pod.requests]
    assert {name: given.count(name) for name in set(given)} == {"food-review-1": 90, "food-review-2": 10}
