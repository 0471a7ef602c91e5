"""Every API that has a model is routed by it, and the picker knows it where no rule asks for it."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, picker_policy, pool, route, rule, to_pool
from tests.nginx.servers import Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

JSON_APIS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/v1/audio/speech",
    "/v1/images/generations",
)
FORM_APIS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations")
USAGE: list[tuple[str, Json, tuple[int | None, int | None]]] = [
    # path, usage that the answer tells, and what is logged of it: tokens of the prompt and of the answer
    ("/v1/rerank", {"total_tokens": 5}, (5, None)),
    ("/v1/rerank", {"prompt_tokens": 4, "total_tokens": 4}, (4, None)),
    ("/v1/score", {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0}, (7, 0)),
    ("/v1/images/generations", {"total_tokens": 9, "input_tokens": 4, "output_tokens": 5}, (4, 5)),
    ("/v1/audio/transcriptions", {"type": "tokens", "total_tokens": 9, "input_tokens": 4, "output_tokens": 5}, (4, 5)),
    ("/v1/audio/transcriptions", {"type": "duration", "seconds": 3}, (None, None)),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def routes(gateway: Gateway) -> AsyncIterator[None]:
    by_name = {"headers": [{"name": "X-Gateway-Model-Name", "value": "m"}]}
    async with serve(name="read") as read, serve(name="rest") as rest:
        await gateway.apply(
            "routes.yaml",
            pool("read", read.address),
            pool("rest", rest.address),
            route("read", rule(to_pool("read"), matches=[by_name]), hostnames=["read.example"]),
            route("rest", rule(to_pool("rest")), hostnames=["rest.example"]),
        )
        yield


async def _post(http: httpx.AsyncClient, path: str, host: str) -> httpx.Response:
    if path in FORM_APIS:
        return await http.post(path, data={"model": "m"}, files={"file": b"\x00" * 9000}, headers={"host": host})
    return await http.post(path, json={"input": "hi", "model": "m"}, headers={"host": host})


@pytest.mark.parametrize("path", [*JSON_APIS, *FORM_APIS])
@pytest.mark.parametrize("host", ["read.example", "rest.example"])
async def test_model_is_known(gateway: Gateway, http: httpx.AsyncClient, path: str, host: str) -> None:
    answer = await _post(http, path, host)
    assert (answer.status_code, answer.json()["server"]) == (200, host.partition(".")[0])
    assert (await gateway.logged(answer.headers["x-request-id"]))["model"] == "m"


@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize(("path", "usage", "told"), USAGE)
async def test_usage_is_read(
    gateway: Gateway,
    http: httpx.AsyncClient,
    path: str,
    usage: Json,
    told: tuple[int | None, int | None],
    is_long: bool,
) -> None:
    """Rerankers tell it before their results, which may be long."""
    results = [{"index": number, "relevance_score": 0.5} for number in range(500 if is_long else 1)]
    body = json.dumps({"id": "1", "usage": usage, "results": results}).encode()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body, "Content-Type: application/json"))

    async with serve(answer) as pod:
        policy = picker_policy("usage", usage=True)
        mine = route("usage", rule(to_pool("usage")), hostnames=["usage.example"])
        await gateway.apply("usage.yaml", pool("usage", pod.address), policy, mine)
        await gateway.knows("default/usage", pod.address)
        got = await _post(http, path, "usage.example")
    assert got.content == body
    line = await gateway.logged(got.headers["x-request-id"])
    assert (line["prompt_tokens"], line["completion_tokens"]) == told
