"""GET /v1/models where a Gateway has several pools, whose models have aliases."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import pool, route, rule, to_pool

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two_pools(gateway: Gateway) -> AsyncIterator[None]:
    """Two pools with models of their own: behind one rule by weight, and behind rules by the model's name."""
    pods = [
        PodSettings(name="l", model="llama", adapters=("food-review-1", "food-review-2"), speed=20),
        PodSettings(name="q", model="qwen", adapters=("org/coder",), speed=20),
    ]
    alias = {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "food-review"},
        "spec": {
            "poolRef": {"name": "llama"},
            "rules": [
                {
                    "matches": [{"model": {"value": "food-review"}}, {"model": {"value": "food"}}],
                    "targets": [{"modelRewrite": "food-review-1"}, {"modelRewrite": "food-review-2"}],
                },
                {"matches": [{"model": {"value": "lost"}}], "targets": [{"modelRewrite": "nowhere"}]},
            ],
        },
    }
    by_name = [
        rule(to_pool(name), matches=[{"headers": [{"name": "X-Gateway-Model-Name", "value": name}]}])
        for name in ("llama", "qwen")
    ]
    async with await simulate(pods) as simulation:
        at = simulation.addresses
        await gateway.apply(
            "several.yaml",
            pool("llama", at["l"]),
            pool("qwen", at["q"]),
            alias,
            route("weighted", rule(to_pool("llama", weight=90), to_pool("qwen", weight=10)), hostnames=["w.example"]),
            route("named", *by_name, hostnames=["n.example"]),
            route("one", rule(to_pool("llama")), hostnames=["one.example"]),
        )
        yield


ALL = ["food", "food-review", "food-review-1", "food-review-2", "llama", "org/coder", "qwen"]


@pytest.mark.usefixtures("two_pools")
@pytest.mark.parametrize("host", ["w.example", "n.example"])
async def test_several_pools_are_listed_together(http: httpx.AsyncClient, host: str) -> None:
    async def all_are_listed() -> bool:
        answer = await http.get("/v1/models", headers={"host": host})
        ids = [model["id"] for model in answer.json()["data"]] if answer.status_code == 200 else []
        return ids == ALL and answer.headers["content-type"] == "application/json"

    await eventually(all_are_listed)
    assert [await all_are_listed() for _ in range(20)] == [True] * 20


@pytest.mark.usefixtures("two_pools")
@pytest.mark.parametrize("host", ["w.example", "n.example"])
@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1/models/org%2Fcoder", "org/coder"), ("/v1/models/food", "food"), ("/v1/models/qwen", "qwen")],
)
async def test_one_model_is_told_of(http: httpx.AsyncClient, host: str, path: str, model: str) -> None:
    await test_several_pools_are_listed_together(http, host)
    answer = await http.get(path, headers={"host": host})
    assert (answer.status_code, answer.json()["id"], answer.json()["object"]) == (200, model, "model")


@pytest.mark.usefixtures("two_pools")
async def test_model_that_no_rule_has_is_404(http: httpx.AsyncClient) -> None:
    await test_several_pools_are_listed_together(http, "n.example")
    answer = await http.get("/v1/models/unknown", headers={"host": "n.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["message"].endswith(", ".join(ALL))


@pytest.mark.usefixtures("two_pools")
async def test_header_of_a_client_names_no_pools(http: httpx.AsyncClient) -> None:
    await test_several_pools_are_listed_together(http, "n.example")
    steering = {"x-infergate-pools": "default/qwen", "x-infergate-pool": "default/qwen"}
    answer = await http.get("/v1/models", headers={"host": "one.example", **steering})
    assert [model["id"] for model in answer.json()["data"]] == ALL[:5]
