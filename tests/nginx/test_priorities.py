"""The priority that a route gives its requests."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from controller.headers import PRIORITY_HEADERS
from tests.nginx.gateway import Gateway, client_of, eventually, run_gateway, until
from tests.nginx.resources import Json, header, pool, request_headers, route, rule, to_pool
from tests.nginx.servers import Backend, Request, describe, pick, serve, serve_picks

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

_QUEUE = "infergate_flow_control_queue_size{"
CLIENTS = dict.fromkeys(PRIORITY_HEADERS, "100")


def _annotated(resource: Json, **annotations: str) -> Json:
    """`_` in an annotation stands for `-`."""
    named = {f"infergate.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {**resource, "metadata": {**resource["metadata"], "annotations": named}}


def _named(made: Json, name: str) -> Json:
    return {**made, "name": name}


async def test_picker_is_told_what_the_route_says_and_nothing_of_the_client(
    nginx: Nginx, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with run_gateway(tmp_path_factory.mktemp("told"), nginx, picker=()) as gateway, serve() as pod:

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(pick(request, pod.address))

        changed = [request_headers(set=[header("X-Set", "yes")])]
        rules = [
            _named(rule(to_pool("gpu"), path="/low"), "low"),
            _named(rule(to_pool("gpu", weight=1), to_pool("other", weight=1), path="/split"), "split"),
            _named(rule(to_pool("gpu"), path="/changed", filters=changed), "changed"),
            _named(rule(to_pool("gpu"), path="/plain"), "plain"),
        ]
        said = {"priority": "low=-1, split=0", "priority_cap": "changed=5", "priority_default": "changed=-2147483648"}
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address),
            pool("other", pod.address),
            _annotated(route("all", *rules), **said),
        )
        async with serve_picks(gateway.state.root / "run/picker.sock", answer) as picks, client_of(gateway) as http:
            for path, expected in (
                ("/low", (["-1"], [], [])),
                ("/split", (["0"], [], [])),
                ("/changed", ([], ["5"], ["-2147483648"])),
                ("/plain", ([], [], [])),
            ):
                assert (await http.post(path, content=b"x", headers=CLIENTS)).status_code == 200
                told = tuple(picks.requests[-1].values(name) for name in PRIORITY_HEADERS)
                assert (path, told) == (path, expected)
                assert [pod.requests[-1].values(name) for name in PRIORITY_HEADERS] == [[], [], []]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(gateway: Gateway) -> AsyncIterator[tuple[asyncio.Event, Backend]]:
    """What lets answers through, and the pod that answers: one request at a time, the others wait."""
    opened = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await opened.wait()
        await describe(request, writer)

    policy = {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "PickerPolicy",
        "metadata": {"name": "gpu"},
        "spec": {
            "targetRefs": [{"name": "gpu"}],
            "config": {
                "plugins": [{"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}}],
                "flowControl": {"saturationDetector": {"pluginRef": "concurrency-detector"}},
            },
        },
    }
    objective = {
        "apiVersion": "llm-d.ai/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": "urgent"},
        "spec": {"priority": 50, "poolRef": {"name": "gpu"}},
    }
    async with serve(answer) as pod:
        rules = [_named(rule(to_pool("gpu"), path=f"/{name}"), name) for name in ("low", "capped", "high", "plain")]
        said = {"priority": "low=-1, high=10", "priority_cap": "capped=-5"}
        await gateway.apply(
            "routes.yaml", pool("gpu", pod.address), policy, objective, _annotated(route("all", *rules), **said)
        )
        await gateway.knows("default/gpu", pod.address)
        yield opened, pod
        opened.set()


async def test_routes_decide_who_is_refused_and_who_goes_first(
    gateway: Gateway, http: httpx.AsyncClient, door: tuple[asyncio.Event, Backend]
) -> None:
    opened, pod = door
    urgent = {"X-Llm-D-Inference-Objective": "urgent", **CLIENTS}
    first = asyncio.create_task(http.post("/plain", content=b"1"))
    await until(lambda: len(pod.requests) == 1)
    assert (await http.post("/low", content=b"2", headers=urgent)).status_code == 429
    assert (await http.post("/capped", content=b"3", headers=urgent)).status_code == 429
    plain = asyncio.create_task(http.post("/plain", content=b"4", headers=CLIENTS))
    await _waiting(gateway, 1)
    high = asyncio.create_task(http.post("/high", content=b"5"))
    await _waiting(gateway, 2)
    opened.set()
    assert {answer.status_code for answer in await asyncio.gather(first, plain, high)} == {200}
    assert [request.target for request in pod.requests] == ["/plain", "/high", "/plain"]


async def _waiting(gateway: Gateway, count: int) -> None:
    """Waits until so many requests are in the queue."""

    async def are_waiting() -> bool:
        sizes = [size for name, size in (await gateway.metrics()).items() if name.startswith(_QUEUE)]
        return sum(sizes) == count

    await eventually(are_waiting)


async def test_priority_of_a_route_counts_without_a_policy(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async def is_read(count: int) -> bool:
        return (await gateway.metrics()).get('infergate_average_queue_size{pool="default/bare"}') == count

    async with serve() as pod:
        pod.metrics = "vllm:num_requests_running 1\nvllm:num_requests_waiting 100\n"
        rules = [_named(rule(to_pool("bare"), path=f"/{name}"), name) for name in ("low", "plain")]
        bare = _annotated(route("bare", *rules, hostnames=["bare.test"]), priority="low=-1")
        await gateway.apply("bare.yaml", pool("bare", pod.address), bare)
        await eventually(lambda: is_read(100))
        host = {"host": "bare.test"}
        refused = await http.post("/low", content=b"1", headers=host)
        assert (refused.status_code, refused.headers["x-llm-d-request-dropped-reason"]) == (429, "rejected-saturated")
        plain = asyncio.create_task(http.post("/plain", content=b"2", headers=host))
        await _waiting(gateway, 1)
        pod.metrics = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"
        assert (await plain).status_code == 200
        assert (await http.post("/low", content=b"3", headers=host)).status_code == 200
        assert [request.target for request in pod.requests] == ["/plain", "/low"]
