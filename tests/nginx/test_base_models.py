"""Adapters and base models that nobody writes down: the pods say them, and routes by the base model follow."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.agent import client
from controller.agent.nginx import Nginx
from controller.agent.state import PICKER_SOCKET
from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import SECONDS, Gateway, Run, eventually
from tests.nginx.resources import Json, pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

CHAT = "/v1/chat/completions"


def _by_base(value: str) -> Json:
    return {"headers": [{"name": "X-Gateway-Base-Model-Name", "value": value}]}


def _alias(name: str, *targets: str, of: str) -> Json:
    spec = {"modelName": name, "poolRef": {"name": of, "group": "inference.networking.k8s.io"}}
    models = [{"name": target} for target in targets]
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": {**spec, "targetModels": models},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation() -> AsyncIterator[Simulation]:
    pods = [
        PodSettings(name="llama-0", model="llama", adapters=("food-review-1",), speed=50),
        PodSettings(name="llama-1", model="llama", adapters=("food-review-2",), speed=50),
        PodSettings(name="qwen-0", model="qwen", adapters=("food-review-1", "coder"), speed=50),
    ]
    async with await simulate(pods) as simulation:
        yield simulation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(gateway: Gateway, simulation: Simulation) -> AsyncIterator[Backend]:
    """Of `seen.example`, what gets requests whose base model is llama. The pods are in pools behind another host."""
    at = simulation.addresses
    rules = [rule(to_service("seen"), matches=[_by_base("llama")]), rule(to_pool("qwen"), matches=[_by_base("qwen")])]
    async with serve(name="seen") as seen:
        await gateway.apply(
            "routes.yaml",
            pool("llama", at["llama-0"], at["llama-1"]),
            pool("qwen", at["qwen-0"]),
            service("seen", seen.address),
            _alias("food-review", "food-review-1", "food-review-2", of="llama"),
            route("seen", *rules, hostnames=["seen.example"]),
            route("pools", rule(to_pool("llama"), path="/llama"), hostnames=["pools.example"]),
        )
        yield seen


async def _base(http: httpx.AsyncClient, model: str) -> str:
    """The base model by which a request goes its way; empty where no rule has it."""
    answer = await http.post(CHAT, json={"model": model, "max_tokens": 1}, headers={"host": "seen.example"})
    if answer.status_code == 404 and answer.json()["error"].get("code") == "route_not_found":
        return ""
    if "x-simulated-pod" in answer.headers:
        return "qwen"
    return str(next(value for name, value in answer.json()["headers"] if name == "x-gateway-base-model-name"))


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("llama", "llama"),
        ("food-review-2", "llama"),
        ("food-review-1", "llama"),  # of two pools that have it, the first by name
        ("food-review", "llama"),
        ("coder", "qwen"),
        ("qwen", "qwen"),
    ],
)
async def test_request_for_an_adapter_is_routed_by_its_base_model(
    http: httpx.AsyncClient, model: str, base: str
) -> None:
    async def is_known() -> bool:
        return await _base(http, model) == base

    await eventually(is_known)


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("model", ["unknown", "constructor", "__proto__", "\n", ""])
async def test_model_that_no_pod_serves_has_no_base(http: httpx.AsyncClient, model: str) -> None:
    await test_request_for_an_adapter_is_routed_by_its_base_model(http, "llama", "llama")
    assert await _base(http, model) == ""


@pytest.mark.usefixtures("seen")
async def test_adapter_is_known_while_it_is_loaded(http: httpx.AsyncClient, simulation: Simulation) -> None:
    async def change(what: str) -> None:
        url = f"http://{simulation.addresses['llama-0']}/v1/{what}_lora_adapter"
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(url, json={"lora_name": "late", "lora_path": "/late"})).status_code == 200

    async def is_known() -> bool:
        return await _base(http, "late") == "llama"

    async def is_unknown() -> bool:
        return not await is_known()

    await test_request_for_an_adapter_is_routed_by_its_base_model(http, "llama", "llama")
    assert await is_unknown()
    await change("load")
    await eventually(is_known, seconds=2 * SECONDS)
    await change("unload")
    await eventually(is_unknown, seconds=2 * SECONDS)
    assert await _base(http, "llama") == "llama"


@pytest.mark.usefixtures("seen")
async def test_config_map_goes_before_what_pods_say(gateway: Gateway, http: httpx.AsyncClient) -> None:
    data = {"baseModel": "qwen", "adapters": "[food-review-2]"}
    metadata = {"name": "qwen", "labels": {"inference.llm-d.ai/ipp-managed": "true"}}
    await gateway.apply("map.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    answer = await http.post(
        CHAT, json={"model": "food-review-2"}, headers={"host": "seen.example", "connection": "close"}
    )
    assert answer.headers["x-simulated-pod"] == "qwen-0"
    await gateway.apply("map.yaml")

    async def is_llamas() -> bool:
        return await _base(http, "food-review-2") == "llama"

    await eventually(is_llamas)


@pytest.mark.usefixtures("seen")
async def test_what_is_known_stays_while_the_picker_starts_anew(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await test_request_for_an_adapter_is_routed_by_its_base_model(http, "food-review-2", "llama")
    first = gateway.data_plane.picker_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    async def has_asked_the_pods() -> bool:
        assert await _base(http, "food-review-2") == "llama"
        if gateway.data_plane.picker_pid in (None, first):
            return False
        with contextlib.suppress(OSError):
            answer = await client.ask(gateway.state, "/base-models", socket=PICKER_SOCKET, timeout=1.0)
            return answer.status == 200
        return False

    await eventually(has_asked_the_pods)
    assert await _base(http, "food-review-2") == "llama"


async def test_gateway_whose_routes_read_no_model_does_not_ask(
    nginx: Nginx, tmp_path_factory: pytest.TempPathFactory, simulation: Simulation, run: Run
) -> None:
    async with run(tmp_path_factory.mktemp("plain"), nginx) as gateway:
        only = pool("llama", simulation.addresses["llama-0"])
        await gateway.apply("routes.yaml", only, route("all", rule(to_pool("llama"))))
        assert "bases.refresh" not in (gateway.state.current / "nginx.conf").read_text()
