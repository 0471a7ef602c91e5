"""Two llama.cpp servers behind the gateway: what is cached is found again."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types.chat import ChatCompletionUserMessageParam

from controller.demo.servers import ModelServerFailed, model_file, model_servers
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import model_rewrite, picker_policy, pool, renamed, route, rule, to_pool

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SERVED = "smollm2-135m-instruct"
"""As the servers of the demo call their model."""
SHARED = "You answer questions about a system in production, in one sentence. " * 100
"""Some 1,300 tokens."""


@dataclass(frozen=True)
class Answer:
    endpoint: str
    first_token: float
    """Seconds."""
    prompt: int
    """Tokens."""
    cached: int
    """Of them, those that the server had."""


@pytest.fixture
def model() -> None:
    try:
        model_file()
    except ModelServerFailed as problem:
        pytest.skip(str(problem))


async def _ask(gateway: Gateway, question: str, *, served: dict[str, str]) -> Answer:
    """A streamed chat with the shared prompt. `served`: endpoints by the id of their request, as the log tells."""
    identity = f"ask-{len(served)}"
    body = {
        "model": "any", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4,
        "messages": [{"role": "system", "content": SHARED}, {"role": "user", "content": question}],
    }  # fmt: skip
    first = 0.0
    usage: dict[str, dict[str, int]] = {}
    began = time.monotonic()
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False) as http,
        http.stream("POST", "/v1/chat/completions", json=body, headers={"X-Request-Id": identity}) as answer,
    ):
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            event = line.removeprefix("data: ")
            if not event or event == "[DONE]":
                continue
            found = json.loads(event)
            if found["choices"] and found["choices"][0]["delta"].get("content"):
                first = first or time.monotonic() - began
            usage = found.get("usage") or usage
    entry = await gateway.logged(identity)
    served[identity] = entry["endpoint"]
    details = usage["prompt_tokens_details"]
    return Answer(entry["endpoint"], first, int(usage["prompt_tokens"]), int(details["cached_tokens"]))  # type: ignore[call-overload]  # JSON


@pytest.mark.usefixtures("model")
async def test_second_request_finds_the_prefix_of_the_first(gateway: Gateway, tmp_path: Path) -> None:
    async with model_servers(tmp_path, simulate=False, threads=1, say=lambda line: None) as running:
        addresses = [server.address for server in running if server.pool == "cpu"]
        await gateway.apply("routes.yaml", pool("cpu", *addresses), route("all", rule(to_pool("cpu"))))
        served: dict[str, str] = {}
        cold = await _ask(gateway, "What is a pod?", served=served)
        await gateway.idle()
        warm = [await _ask(gateway, f"What is a node of kind {n}?", served=served) for n in range(3)]
        assert {answer.endpoint for answer in warm} == {cold.endpoint}
        assert cold.cached < 100 < 1200 < cold.prompt
        assert all(answer.cached > 0.9 * cold.prompt for answer in warm)
        assert max(answer.first_token for answer in warm) < cold.first_token / 3


@pytest.mark.usefixtures("model")
async def test_models_and_tokens_of_llama_cpp_are_understood(gateway: Gateway, tmp_path: Path) -> None:
    async with model_servers(tmp_path, simulate=False, threads=1, say=lambda line: None) as running:
        addresses = [server.address for server in running if server.pool == "cpu"]
        await gateway.apply(
            "routes.yaml",
            pool("cpu", *addresses),
            picker_policy("cpu", usage=True),
            route("all", rule(to_pool("cpu"))),
        )
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False) as http:

            async def picker_lists() -> bool:
                answer = await http.get("/v1/models")
                entry = await gateway.logged(answer.headers["x-request-id"])
                return entry["tries"] == 0 and len(answer.json()["data"]) >= 1

            await eventually(picker_lists)
            asked = {"model": "any", "prompt": "Once upon a time", "max_tokens": 4}
            answer = await http.post("/v1/completions", json=asked)
        usage, line = answer.json()["usage"], await gateway.logged(answer.headers["x-request-id"])
        told = (line["prompt_tokens"], line["completion_tokens"])
        assert told == (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.usefixtures("model")
async def test_openai_client_meets_two_servers_under_two_names(gateway: Gateway, tmp_path: Path) -> None:
    """Names that neither server knows: the route goes by them, and each pool has its own model for its name."""
    async with model_servers(tmp_path, simulate=False, threads=1, say=lambda line: None) as running:
        addresses = dict(zip(("writer", "critic"), [s.address for s in running if s.pool == "cpu"], strict=True))
        await gateway.apply(
            "routes.yaml",
            *(pool(name, address) for name, address in addresses.items()),
            *(model_rewrite(name, name, renamed(name, **{SERVED: 1})) for name in addresses),
            *(picker_policy(name, usage=True) for name in addresses),
            route("names", *(rule(to_pool(name), matches=[_named(name)]) for name in addresses)),
        )
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            for name, address in addresses.items():
                asked = client.chat.completions.with_raw_response
                message: ChatCompletionUserMessageParam = {"role": "user", "content": f"Who is the {name}?"}
                raw = await asked.create(model=name, messages=[message], max_tokens=4)
                assert raw.parse().model == name
                line = await gateway.logged(raw.headers["x-request-id"])
                assert (line["endpoint"], line["model"], line["target_model"]) == (address, name, SERVED)
                assert line["completion_tokens"] == 4
                stream = await client.chat.completions.create(model=name, messages=[message], max_tokens=4, stream=True)
                chunks = [chunk async for chunk in stream]
                assert {chunk.model for chunk in chunks} == {name}
                assert len(chunks) > 4
            with pytest.raises(NotFoundError):
                await client.chat.completions.create(model="nobody", messages=[message], max_tokens=4)


def _named(model: str) -> dict[str, object]:
    path = {"type": "PathPrefix", "value": "/v1"}
    return {"path": path, "headers": [{"name": "X-Gateway-Model-Name", "value": model}]}
