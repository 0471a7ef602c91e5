"""How requests are divided among the backends of a rule."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of
from tests.nginx.resources import pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

REQUESTS = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(gateway: Gateway) -> AsyncIterator[dict[str, Backend]]:
    async with AsyncExitStack() as stack:
        found = {name: await stack.enter_async_context(serve(name=name)) for name in ("one", "two")}
        pools = {"pools": (to_pool, to_pool), "services": (to_service, to_service), "both": (to_pool, to_service)}
        await gateway.apply(
            "routes.yaml",
            *(each for name, made in found.items() for each in (pool(name, made.address), service(name, made.address))),
            pool("empty"),
            service("unready"),
            *(
                route(name, rule(first("one", weight=90), second("two", weight=10), path=f"/{name}"))
                for name, (first, second) in pools.items()
            ),
            route(
                "thirds",
                rule(*[to_pool("one", weight=1), to_pool("one", weight=1), to_pool("two", weight=1)], path="/thirds"),
            ),
            route("none", rule(to_pool("one", weight=0), to_pool("two", weight=5), path="/none")),
            route("zero", rule(to_pool("one", weight=0), path="/zero")),
            route("missing", rule(to_pool("one", weight=3), to_service("nowhere", weight=1), path="/missing")),
            route("no-pool", rule(to_pool("one", weight=3), to_pool("nowhere", weight=1), path="/no-pool")),
            route("empty", rule(to_pool("one", weight=3), to_pool("empty", weight=1), path="/empty")),
            route("unready", rule(to_pool("one", weight=3), to_service("unready", weight=1), path="/unready")),
        )
        yield found


async def _outcomes(gateway: Gateway, path: str) -> Counter[str]:
    """Who served, or the status of an error, and how often."""
    async with client_of(gateway) as http:

        async def ask(count: int) -> list[httpx.Response]:
            return [await http.post(path, content=b"x") for _ in range(count)]

        answers = [
            answer for some in await asyncio.gather(*(ask(REQUESTS // 20) for _ in range(20))) for answer in some
        ]
    return Counter(
        answer.json()["server"] if answer.status_code == 200 else str(answer.status_code) for answer in answers
    )


@pytest.mark.parametrize("path", ["/pools", "/services", "/both"])
async def test_90_and_10_are_kept(gateway: Gateway, backends: dict[str, Backend], path: str) -> None:
    found = await _outcomes(gateway, path)
    # Five times the standard deviation of 9.5.
    assert abs(found["two"] - REQUESTS * 0.1) < 48
    assert found["one"] + found["two"] == REQUESTS, found


async def test_shares_of_one_backend_add_up(gateway: Gateway, backends: dict[str, Backend]) -> None:
    found = await _outcomes(gateway, "/thirds")
    assert abs(found["two"] - REQUESTS / 3) < 75
    assert found["one"] + found["two"] == REQUESTS, found


async def test_share_that_steps_of_a_ten_thousandth_cannot_express_is_served(
    tmp_path: Path, nginx: Nginx, run: Run
) -> None:
    """The coarse split leaves to the fine one almost all instead of a ten-thousandth."""
    edits = {"99.99% @default/fine/0/0;": "0.01% @default/fine/0/0;"}
    async with serve(name="one") as one, serve(name="two") as two, run(tmp_path, nginx, edits=edits) as gateway:
        shares = [to_service("one", weight=19999), to_service("two", weight=1)]
        services = [service(name, backend.address) for name, backend in (("one", one), ("two", two))]
        await gateway.apply("routes.yaml", *services, route("fine", rule(*shares, path="/fine")))
        found = await _outcomes(gateway, "/fine")
    assert found["one"] + found["two"] == REQUESTS, found
    # The fine split divides in half; six times the standard deviation of 16.
    assert abs(found["two"] - REQUESTS / 2) < 96


async def test_weight_of_0_gets_nothing(gateway: Gateway, backends: dict[str, Backend]) -> None:
    assert await _outcomes(gateway, "/none") == {"two": REQUESTS}


async def test_rule_whose_weights_are_all_0_is_500(http: httpx.AsyncClient, backends: dict[str, Backend]) -> None:
    answer = await http.post("/zero", content=b"x")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")


@pytest.mark.parametrize(
    ("path", "status"), [("/missing", "500"), ("/no-pool", "500"), ("/empty", "503"), ("/unready", "503")]
)
async def test_backend_that_cannot_serve_fails_for_its_share_alone(
    gateway: Gateway, backends: dict[str, Backend], path: str, status: str
) -> None:
    found = await _outcomes(gateway, path)
    # Five times the standard deviation of 13.7.
    assert abs(found[status] - REQUESTS / 4) < 70
    assert found["one"] + found[status] == REQUESTS


@pytest.mark.parametrize("path", ["/missing", "/no-pool", "/empty", "/unready"])
async def test_share_that_fails_says_why_in_json(
    http: httpx.AsyncClient, backends: dict[str, Backend], path: str
) -> None:
    answers = [await http.post(path, content=b"x") for _ in range(60)]
    failed = next(answer for answer in answers if answer.status_code >= 500)
    assert failed.headers["content-type"] == "application/json"
    assert failed.json()["error"]["message"]
    if path == "/empty":
        assert failed.headers["retry-after"].isdigit()


async def test_share_of_a_pool_is_served_by_the_pods_of_that_pool(
    gateway: Gateway, backends: dict[str, Backend]
) -> None:
    """The pod that serves is one that was picked: no share is served with the pick of another."""
    for made in backends.values():
        made.requests.clear()
    await _outcomes(gateway, "/pools?by=pool")
    lines = [line for line in gateway.log_lines() if b'"path":"/pools"' in line]
    for name, made in backends.items():
        of_pool = [line for line in lines if f'"pool":"default/{name}"'.encode() in line]
        assert of_pool
        assert all(f'"endpoint":"{made.address}"'.encode() in line for line in of_pool)
