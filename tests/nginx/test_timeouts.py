"""How long a rule waits for a backend."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, pool, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SLOW = 0.8
"""Seconds that the backend takes for `/slow`."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target.endswith("/silent"):
            await request.hung_up()
        elif request.target.endswith("/slow"):
            await asyncio.sleep(SLOW)
            writer.write(response(b"late"))
        elif request.target.endswith("/endless"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"1\r\n.\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        else:
            writer.write(response(b"soon"))

    def rules(name: str, *backends: Json) -> list[Json]:
        return [
            rule(*backends, path=f"/{name}/request", timeouts={"request": "400ms"}),
            rule(*backends, path=f"/{name}/backend", timeouts={"backendRequest": "400ms"}),
            rule(*backends, path=f"/{name}/both", timeouts={"request": "5s", "backendRequest": "400ms"}),
            rule(*backends, path=f"/{name}/never", timeouts={"request": "0s"}),
        ]

    async with serve(answer) as backend:
        await gateway.apply(
            "routes.yaml",
            service("backend", backend.address),
            pool("backend", backend.address),
            route("service", *rules("service", to_service("backend"))),
            route("pool", *rules("pool", to_pool("backend"))),
        )
        await gateway.knows("default/backend", backend.address)
        yield backend


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
@pytest.mark.parametrize("limit", ["request", "backend", "both"])
async def test_silent_backend_is_504(http: httpx.AsyncClient, kind: str, limit: str) -> None:
    begun = time.monotonic()
    answer = await http.post(f"/{kind}/{limit}/silent", content=b"x")
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/json")
    assert 0.4 <= time.monotonic() - begun < 3


async def test_backend_that_took_too_long_is_left(http: httpx.AsyncClient, backend: Backend) -> None:
    before = len(backend.requests)
    assert (await http.get("/service/request/slow")).status_code == 504
    assert len(backend.requests) == before + 1


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
async def test_zero_waits_on(http: httpx.AsyncClient, kind: str) -> None:
    assert (await http.get(f"/{kind}/never/slow")).content == b"late"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
async def test_answer_in_time_is_whole(http: httpx.AsyncClient, kind: str) -> None:
    assert (await http.get(f"/{kind}/request/quick")).content == b"soon"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("path", ["/service/request/endless", "/service/backend/endless", "/pool/request/endless"])
async def test_answer_that_goes_on_is_cut_at_the_deadline(http: httpx.AsyncClient, path: str) -> None:
    begun = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(path)
    assert 0.4 <= time.monotonic() - begun < 3
