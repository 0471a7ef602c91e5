"""Headers of backends that a server hides for most of its rules stay hidden there, and come through the others."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, header, pool, response_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SETS = response_headers(set=[header("X-Team", "of the route")])
REMOVES = response_headers(remove=["X-Other"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok", "X-Team: of the backend", "X-Other: kept", "X-Infergate-Target: invented"))

    async with serve(answer) as backend:
        await gateway.apply(
            "routes.yaml",
            pool("backend", backend.address),
            service("backend", backend.address),
            _route("services", to_service("backend")),
            _route("pools", to_pool("backend")),
        )
        yield backend


def _route(name: str, to: Json) -> Json:
    return route(
        name,
        *(rule(to, path=f"/set-{number}", filters=[SETS]) for number in range(3)),
        rule(to, path="/plain"),
        rule(to, path="/removed", filters=[REMOVES]),
        hostnames=[f"{name}.example"],
    )


@pytest.mark.parametrize("host", ["services.example", "pools.example"])
@pytest.mark.parametrize(
    ("path", "team", "other"),
    [
        ("/set-1", ["of the route"], ["kept"]),
        ("/plain", ["of the backend"], ["kept"]),
        ("/removed", ["of the backend"], []),
    ],
)
async def test_rule_hides_what_it_says_and_no_more(
    http: httpx.AsyncClient, backend: Backend, host: str, path: str, team: list[str], other: list[str]
) -> None:
    answer = await http.get(path, headers={"host": host})

    assert answer.status_code == 200
    assert answer.headers.get_list("x-team") == team
    assert answer.headers.get_list("x-other") == other
    assert "x-infergate-target" not in answer.headers
