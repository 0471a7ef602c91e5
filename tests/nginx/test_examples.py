"""The YAML in `examples`, with simulated model servers."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

EXAMPLES = Path(__file__).parents[2] / "examples"
REQUESTS = 200


def _documents(name: str, *, port: int, servers: list[str]) -> list[dict[str, Any]]:  # YAML
    """The documents of an example, with these ports."""
    documents = list(yaml.safe_load_all((EXAMPLES / name / "gateway.yaml").read_text()))
    ports = iter(servers)
    for document in documents:
        if document["kind"] == "Gateway":
            document["spec"]["listeners"][0]["port"] = port
        if document["kind"] == "EndpointSlice":
            document["ports"] = [{"port": int(next(ports).rpartition(":")[2])}]
    return documents


async def test_food_review_is_divided_between_two_adapters(gateway: Gateway, http: httpx.AsyncClient) -> None:
    adapters = ("food-review-1", "food-review-2")
    pods = [PodSettings(name=name, model="llama", adapters=adapters, speed=50) for name in ("a", "b")]
    async with await simulate(pods) as simulation:
        addresses = list(simulation.addresses.values())
        await gateway.apply("gateway.yaml", *_documents("food-review", port=gateway.port, servers=addresses))
        await gateway.prefers("default/llama", *addresses)
        for number in range(REQUESTS):
            asked = {"model": "food-review", "prompt": f"The soup {number} was", "max_tokens": 1}
            answer = await http.post("/v1/completions", json=asked)
            assert (answer.status_code, answer.json()["model"]) == (200, "food-review")
        direct = await http.post("/v1/completions", json={"model": "llama", "prompt": "x", "max_tokens": 1})
        arrived = [
            item for pod in ("a", "b") for item in simulation.pod(pod).arrivals if item.path == "/v1/completions"
        ]
    assert direct.json()["model"] == "llama"
    counts = Counter(item.model for item in arrived)
    assert counts["food-review-1"] == pytest.approx(0.9 * REQUESTS, abs=2)
    assert counts["food-review-2"] == pytest.approx(0.1 * REQUESTS, abs=2)
    assert counts["llama"] == 1
    metrics = await gateway.metrics()
    labels = 'model="food-review",pool="default/llama",target_model="food-review-2"'
    assert metrics[f"infergate_rewritten_requests_total{{{labels}}}"] == counts["food-review-2"]
