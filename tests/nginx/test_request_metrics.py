"""What the picker tells of requests under the names of the field."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import model_rewrite, picker_policy, pool, renamed, route, rule, to_pool
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

CHAT = "/v1/chat/completions"
USAGE = b'"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}'
WHOLE = b'{"model":"m","choices":[],%b}' % USAGE
EVENTS = (b'data: {"choices":[{}]}\n\n', b'data: {"choices":[],%b}\n\n' % USAGE, b"data: [DONE]\n\n")
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
    """A model server that fails for the prompt `fail`, and streams to who asks for it."""
    asked = json.loads(request.body)
    if asked["prompt"] == "fail":
        writer.write(response(b'{"error":{}}', status="500 Internal Server Error"))
    elif asked.get("stream"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (*EVENTS, b""):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
    else:
        writer.write(response(WHOLE, "Content-Type: application/json"))


@dataclass
class Counts:
    """The picker's counts since they were looked at."""

    gateway: Gateway
    before: Mapping[str, float]

    async def of(self, name: str, /, **labels: str) -> float:
        """What was added to the samples of that name that have these labels."""
        return _sum(await self.gateway.metrics(), name, labels) - _sum(self.before, name, labels)

    async def are(self, value: float, name: str, /, **labels: str) -> None:
        """Wait until so much was added."""

        async def is_so() -> bool:
            return await self.of(name, **labels) == value

        await eventually(is_so)


def _sum(metrics: Mapping[str, float], name: str, labels: Mapping[str, str]) -> float:
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    prefix = f"llm_d_epp_{name}{{"
    return sum(
        value
        for key, value in metrics.items()
        if key.startswith(prefix) and wanted.issubset(key.removeprefix(prefix).removesuffix("}").split(","))
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway, http_of_module: httpx.AsyncClient) -> AsyncIterator[Backend]:
    """Behind a pool whose answers are read, beside a pool that has no endpoint."""
    async with serve(answer) as pod:
        pod.models = ("m",)
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address),
            pool("empty"),
            picker_policy("gpu", usage=True),
            model_rewrite("named", "gpu", renamed("alias", m=1)),
            route("all", rule(to_pool("empty"), path="/empty"), rule(to_pool("gpu"))),
        )
        await gateway.knows("default/gpu", pod.address)

        async def is_known() -> bool:
            await http_of_module.post(CHAT, json={"model": "m", "prompt": "x"})
            return _sum(await gateway.metrics(), "request_total", {"model_name": "m"}) > 0

        # A model that no endpoint has told of yet is another one.
        await eventually(is_known)
        await gateway.idle()
        yield pod


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http_of_module(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def counts(gateway: Gateway, pod: Backend) -> Counts:
    await gateway.idle()
    return Counts(gateway, await gateway.metrics())


async def test_answer_is_told_with_its_sizes_and_tokens(http: httpx.AsyncClient, counts: Counts) -> None:
    asked = await http.post(CHAT, json={"model": "m", "prompt": "x"})
    await counts.are(1, "request_duration_seconds_count", model_name="m", target_model_name="m", priority="0")
    assert await counts.of("request_total", name="gpu", namespace="default", model_name="m") == 1
    assert await counts.of("request_size_bytes_sum") == len(asked.request.content)
    assert await counts.of("response_size_bytes_sum") == len(WHOLE)
    assert await counts.of("request_ttft_seconds_count", streaming="false") == 1
    told = [await counts.of(f"request_{kind}_tokens_sum") for kind in ("input", "cached", "output")]
    assert told == [12, 8, 3]
    assert await counts.of("request_ntpot_seconds_count") == 1
    assert await counts.of("request_streaming_tpot_seconds_count") == 0
    assert await counts.of("scheduler_attempts_total", status="success") == 1
    assert await counts.of("request_error_total") == 0


async def test_stream_has_its_first_token_apart(http: httpx.AsyncClient, counts: Counts) -> None:
    await http.post(CHAT, json={"model": "m", "prompt": "x", **STREAM})
    await counts.are(1, "request_ttft_seconds_count", streaming="true", model_name="m")
    assert await counts.of("request_ttft_seconds_count") == 1
    assert await counts.of("response_size_bytes_sum") >= sum(map(len, EVENTS))
    assert await counts.of("request_output_tokens_sum") == 3


async def test_error_of_a_model_server_is_one_of_its_requests(http: httpx.AsyncClient, counts: Counts) -> None:
    assert (await http.post(CHAT, json={"model": "m", "prompt": "fail"})).status_code == 500
    await counts.are(1, "request_error_total", error_code="ModelServerError", model_name="m", name="gpu")
    assert await counts.of("request_total") == 1
    assert await counts.of("request_ttft_seconds_count") == 0


async def test_refused_request_is_an_error_of_its_pool(http: httpx.AsyncClient, counts: Counts) -> None:
    assert (await http.post(f"/empty{CHAT}", json={"model": "m", "prompt": "x"})).status_code == 503
    await counts.are(1, "request_error_total", error_code="ServiceUnavailable", name="empty", model_name="other")
    assert await counts.of("request_total", name="empty") == 1
    assert await counts.of("request_duration_seconds_count") == 0
    assert await counts.of("scheduler_attempts_total", status="failure") == 1


async def test_request_is_told_with_both_of_its_models(http: httpx.AsyncClient, counts: Counts) -> None:
    await http.post(CHAT, json={"model": "alias", "prompt": "x"})
    await counts.are(1, "request_duration_seconds_count", model_name="alias", target_model_name="m")
    named = {"model_rewrite_name": "named", "model_name": "alias", "target_model": "m"}
    assert await counts.of("model_rewrite_decisions_total", **named) == 1
