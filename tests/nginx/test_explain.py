"""What a client sees that asks why its endpoint was chosen."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, header, pool, response_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, nobody, reset, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

ASK = {"X-Infergate-Explain": "1"}


def _policy(name: str, **spec: object) -> Json:
    return {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "PickerPolicy",
        "metadata": {"name": name},
        "spec": {"targetRefs": [{"name": name}], **spec},
    }


def _full() -> Json:
    """Nobody is admitted at once, and nobody may wait."""
    return {
        "plugins": [{"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}}],
        "flowControl": {
            "saturationDetector": {"pluginRef": "concurrency-detector"},
            "priorityBands": [{"priority": 0, "usageCeiling": 0.01}],
            "defaultRequestTTL": "100ms",
        },
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway) -> AsyncIterator[Backend]:
    """The pod of the pools that tell why, and of one that does not."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"from the pod", "X-Infergate-Explain: of the pod", "X-Pod: yes"))

    async def fail(request: Request, writer: asyncio.StreamWriter) -> None:
        await reset(request, writer)

    async with serve(answer) as pod, serve(fail) as bad, serve(fail) as worse:
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address),
            pool("silent", pod.address),
            pool("full", pod.address),
            pool("empty"),
            pool("failing", bad.address, worse.address),
            service("cpu", pod.address),
            _policy("gpu", explain=True),
            _policy("silent"),
            _policy("full", explain=True, config=_full()),
            _policy("empty", explain=True),
            _policy("failing", explain=True),
            route(
                "all",
                rule(to_pool("gpu"), path="/gpu"),
                rule(to_pool("gpu"), path="/changed", filters=[response_headers(set=[header("X-Set", "yes")])]),
                rule(to_pool("silent"), path="/silent"),
                rule(to_pool("full"), path="/full"),
                rule(to_pool("empty"), path="/empty"),
                rule(to_pool("failing"), path="/failing"),
                rule(to_service("cpu"), path="/service"),
            ),
        )
        await gateway.knows("default/gpu", pod.address)
        yield pod


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/gpu", "/changed"])
async def test_client_that_asks_is_told(http: httpx.AsyncClient, pod: Backend, path: str, stream: bool) -> None:
    body = {"model": "m", "prompt": "said in secret " * 100, "stream": stream}
    answer = await http.post(f"{path}/v1/completions", json=body, headers=ASK)
    assert (answer.status_code, answer.text, answer.headers["x-pod"]) == (200, "from the pod", "yes")
    (value,) = answer.headers.get_list("x-infergate-explain")
    told = json.loads(value)
    assert (told["outcome"], told["choice"]) == ("picked", pod.address)
    assert told["promptTokens"] > 300
    assert "secret" not in value
    assert answer.headers.get("x-set") == ("yes" if path == "/changed" else None)
    assert pod.requests[-1].values("x-infergate-explain") == []


@pytest.mark.parametrize("asked", ["0", "true", "", "11"])
async def test_other_values_ask_nothing(http: httpx.AsyncClient, pod: Backend, asked: str) -> None:
    answer = await http.post("/gpu", content=b"x", headers={"X-Infergate-Explain": asked})
    assert "x-infergate-explain" not in answer.headers


@pytest.mark.parametrize(("path", "headers"), [("/gpu", {}), ("/silent", ASK), ("/service", ASK)])
async def test_nothing_is_told_unasked_or_where_it_is_not_allowed(
    http: httpx.AsyncClient, pod: Backend, path: str, headers: dict[str, str]
) -> None:
    answer = await http.post(path, content=b"x", headers=headers)
    assert (answer.status_code, answer.text) == (200, "from the pod")
    assert "x-infergate-explain" not in answer.headers
    assert pod.requests[-1].values("x-infergate-explain") == []


async def test_refusal_of_the_flow_control_is_told(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.post("/full", content=b"x", headers=ASK)
    assert answer.status_code == 429
    told = json.loads(answer.headers["x-infergate-explain"])
    assert told["outcome"] == answer.json()["error"]["code"] == "rejected-ttl-expired"
    assert (told["choice"], told["why"]) == (None, "no choice was made")
    assert told["waitedMs"] >= 100


async def test_pool_without_endpoints_is_told(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.post("/empty", content=b"x", headers=ASK)
    assert answer.status_code == 503
    assert json.loads(answer.headers["x-infergate-explain"])["outcome"] == "no_endpoints"


async def test_request_that_failed_everywhere_is_told_what_was_tried(http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.post("/failing", content=b"x", headers=ASK)
    assert answer.status_code == 502
    (value,) = answer.headers.get_list("x-infergate-explain")
    told = json.loads(value)
    assert told["outcome"] == "endpoints_failed"
    assert [item.partition("=")[2] for item in told["tried"]] == ["closed", "closed"]


async def test_permission_is_taken_away_live(gateway: Gateway, http: httpx.AsyncClient, pod: Backend) -> None:
    with nobody() as address:
        documents = [*pool("brief", address), route("brief", rule(to_pool("brief"), path="/brief"))]
        await gateway.apply("brief.yaml", *documents, _policy("brief", explain=True))
        assert "x-infergate-explain" in (await http.post("/brief", content=b"x", headers=ASK)).headers
        await gateway.apply("brief.yaml", *documents, _policy("brief"))
        assert "x-infergate-explain" not in (await http.post("/brief", content=b"x", headers=ASK)).headers
