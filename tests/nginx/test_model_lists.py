"""GET /v1/models lists what all ready pods of a pool serve."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import pool, rewrite, route, rule, to_pool
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation(gateway: Gateway) -> AsyncIterator[Simulation]:
    """Two pods with different adapters, which nobody has to have asked before."""
    pods = [
        PodSettings(name="a", model="base", adapters=("tuned",), speed=20),
        PodSettings(name="b", model="base", adapters=("other",), speed=20),
    ]
    async with await simulate(pods) as simulation:
        stripped = rewrite(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"})
        await gateway.apply(
            "routes.yaml",
            pool("gpu", *simulation.addresses.values()),
            route("gpu", rule(to_pool("gpu"), path="/v1"), rule(to_pool("gpu"), path="/gpu", filters=[stripped])),
        )
        yield simulation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def silent(gateway: Gateway) -> AsyncIterator[Backend]:
    """A pod that lists nothing when the picker asks, as one does that wants a key."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"its own list"))

    async with serve(answer) as silent:
        await gateway.apply("silent.yaml", pool("silent", silent.address),
                            route("silent", rule(to_pool("silent"), path="/silent")))  # fmt: skip
        yield silent


async def _listed(http: httpx.AsyncClient, path: str) -> list[str]:
    answer = await http.get(path)
    if answer.status_code != 200 or answer.headers["content-type"] != "application/json":
        # Of a pod that was asked because the picker does not know its models yet.
        return []
    body = answer.json()
    assert body["object"] == "list"
    return [model["id"] for model in body["data"]]


@pytest.mark.usefixtures("simulation")
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models?limit=1", "/gpu/v1/models"])
async def test_models_and_adapters_of_all_pods_are_listed(http: httpx.AsyncClient, path: str) -> None:
    async def all_are_listed() -> bool:
        return await _listed(http, path) == ["base", "other", "tuned"]

    await eventually(all_are_listed)


async def test_pods_are_not_asked_by_the_client(http: httpx.AsyncClient, simulation: Simulation) -> None:
    await test_models_and_adapters_of_all_pods_are_listed(http, "/v1/models")
    for name in simulation.addresses:
        simulation.pod(name).arrivals.clear()
    assert (await http.get("/v1/models")).status_code == 200
    assert not any(simulation.pod(name).arrivals for name in simulation.addresses)


async def test_pod_that_leaves_takes_its_models_along(
    gateway: Gateway, http: httpx.AsyncClient, simulation: Simulation
) -> None:
    a, b = (simulation.addresses[name] for name in "ab")
    await gateway.apply("two.yaml", pool("two", a, b), route("two", rule(to_pool("two"), path="/two")))

    async def lists(names: list[str]) -> bool:
        return await _listed(http, "/two/v1/models") == names

    await eventually(lambda: lists(["base", "other", "tuned"]))
    await gateway.apply("two.yaml", pool("two", a), route("two", rule(to_pool("two"), path="/two")))
    assert await lists(["base", "tuned"])


@pytest.mark.usefixtures("silent")
async def test_pod_that_lists_nothing_answers_itself(http: httpx.AsyncClient) -> None:
    answer = await http.get("/silent/v1/models")
    assert (answer.status_code, answer.text) == (200, "its own list")


@pytest.mark.usefixtures("simulation")
async def test_line_of_the_log_says_that_no_pod_was_asked(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await test_models_and_adapters_of_all_pods_are_listed(http, "/v1/models")
    line = await gateway.logged((await http.get("/v1/models")).headers["x-request-id"])
    assert (line["status"], line["endpoint"], line["tries"], line["pool"]) == (200, "", 0, "default/gpu")
    await gateway.idle()
