"""A model that no rule and no pool serves, where the user wants 404 from the gateway."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import Json, picker_policy, pool, rewrite, route, rule, to_pool

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation(gateway: Gateway) -> AsyncIterator[Simulation]:
    pods = [
        PodSettings(name="l", model="llama", adapters=("food-review-1",), speed=50),
        PodSettings(name="q", model="qwen", speed=50),
    ]
    alias = {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "metadata": {"name": "food-review"},
        "spec": {
            "modelName": "food-review",
            "poolRef": {"name": "llama", "group": "inference.networking.k8s.io"},
            "targetModels": [{"name": "food-review-1"}],
        },
    }

    def named(name: str, path: str) -> Json:
        headers = [{"name": "X-Gateway-Model-Name", "value": name}]
        return {"path": {"type": "PathPrefix", "value": path}, "headers": headers}

    any_name = [{"type": "RegularExpression", "name": "X-Gateway-Model-Name", "value": ".*"}]
    stripped = [rewrite(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"})]
    async with await simulate(pods) as simulation:
        at = simulation.addresses
        await gateway.apply(
            "routes.yaml",
            pool("llama", at["l"]),
            pool("qwen", at["q"]),
            alias,
            picker_policy("llama", unknownModels="Refuse"),
            route(
                "all",
                rule(to_pool("llama"), path="/llama", filters=stripped),
                rule(to_pool("qwen"), path="/qwen", filters=stripped),
                rule(
                    to_pool("llama"),
                    matches=[{"path": {"type": "PathPrefix", "value": "/any"}, "headers": any_name}],
                    filters=stripped,
                ),
                rule(to_pool("llama"), matches=[named("llama", "/named")], filters=stripped),
                rule(to_pool("qwen"), matches=[named("qwen", "/named")]),
                rule(to_pool("qwen"), matches=[named("qwen", "/other")]),
            ),
        )
        yield simulation


async def _ask(http: httpx.AsyncClient, path: str, model: str) -> httpx.Response:
    messages = [{"role": "user", "content": "hi"}]
    return await http.post(path, json={"model": model, "messages": messages, "max_tokens": 1})


@pytest.mark.usefixtures("simulation")
@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/llama/v1/chat/completions", "food-review, food-review-1, llama"),
        ("/named/v1/chat/completions", "food-review, food-review-1, llama, qwen"),
    ],
)
async def test_unknown_model_is_404_and_the_error_names_the_others(
    http: httpx.AsyncClient, path: str, there: str
) -> None:
    async def is_refused() -> bool:
        return (await _ask(http, path, "gpt-4")).text.endswith(
            f'{{"error":{{"message":"the model `gpt-4` does not exist, there are {there}",'
            '"type":"invalid_request_error","param":null,"code":"model_not_found"}}'
        )

    await eventually(is_refused)
    answer = await _ask(http, path, "gpt-4")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


@pytest.mark.usefixtures("simulation")
@pytest.mark.parametrize("size", [300_000, 9_000_000])
async def test_large_body_is_refused_where_nginx_reads_its_model(http: httpx.AsyncClient, size: int) -> None:
    async def is_refused() -> bool:
        messages = [{"role": "user", "content": "x" * size}]
        answer = await http.post("/any/v1/chat/completions", json={"messages": messages, "model": "gpt-4"})
        return answer.json()["error"]["code"] == "model_not_found" and answer.headers.get("x-simulated-pod") is None

    await eventually(is_refused)


@pytest.mark.usefixtures("simulation")
@pytest.mark.parametrize("path", ["/llama/v1/messages", "/named/v1/messages", "/named/v1/messages/count_tokens"])
async def test_error_of_anthropics_api_has_its_shape(http: httpx.AsyncClient, path: str) -> None:
    async def is_refused() -> bool:
        answer = await _ask(http, path, "gpt-4")
        body = answer.json()
        return answer.status_code == 404 and "there are food-review," in body["error"]["message"]

    await eventually(is_refused)
    body = (await _ask(http, path, "gpt-4")).json()
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


@pytest.mark.usefixtures("simulation")
async def test_pool_that_does_not_say_so_leaves_it_to_the_model_server(http: httpx.AsyncClient) -> None:
    answer = await _ask(http, "/qwen/v1/chat/completions", "gpt-4")
    assert (answer.status_code, answer.headers["x-simulated-pod"]) == (404, "q")
    other = await _ask(http, "/other/v1/chat/completions", "gpt-4")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "route_not_found")


async def test_adapter_that_was_loaded_is_served_soon(http: httpx.AsyncClient, simulation: Simulation) -> None:
    path = "/llama/v1/chat/completions"
    await test_unknown_model_is_404_and_the_error_names_the_others(http, path, "food-review, food-review-1, llama")
    url = f"http://{simulation.addresses['l']}/v1/load_lora_adapter"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(url, json={"lora_name": "late", "lora_path": "/late"})).status_code == 200

    async def is_served() -> bool:
        return (await _ask(http, path, "late")).status_code == 200

    await eventually(is_served, seconds=5.0)


@pytest.mark.usefixtures("simulation")
@pytest.mark.parametrize("path", ["/llama/v1/chat/completions", "/named/v1/chat/completions"])
async def test_model_that_is_there_is_served(http: httpx.AsyncClient, path: str) -> None:
    answer = await _ask(http, path, "llama")
    assert (answer.status_code, answer.headers["x-simulated-pod"]) == (200, "l")
