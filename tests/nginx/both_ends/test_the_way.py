"""Our gateway with our own picker as an external one: through NGINX, the relay and ext_proc, to the pod."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import client_of, run_gateway
from tests.nginx.resources import Json, pool, route, rule, to_pool
from tests.nginx.servers import Answer, Backend, Request, describe, reset, serve
from tests.picker.ext_proc.conftest import ONE_AT_A_TIME, Served, eventually, served_picker

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        importlib.util.find_spec("controller.relay") is None, reason="needs the relay to external pickers"
    ),
]

CHAT = "/v1/chat/completions"


@dataclass
class Ends:
    """A gateway, the picker that its pool names, and two pods."""

    http: httpx.AsyncClient
    picker: Served
    pods: tuple[Backend, Backend]
    answer: Answer = describe
    """What both pods do."""

    async def begin(self) -> None:
        """As it was."""
        self.answer = describe
        for pod in self.pods:
            pod.requests.clear()
        await self.picker.serving(*(pod.address for pod in self.pods))

    @property
    def requests(self) -> list[Request]:
        return [request for pod in self.pods for request in pod.requests]


def _service(name: str, address: str) -> list[Json]:
    """The Service of a picker that speaks TLS, with its endpoint."""
    host, _, port = address.rpartition(":")
    about = {"name": name, "namespace": "default"}
    ports = [{"name": "grpc", "port": 9002, "appProtocol": "http2"}]
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**about, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": int(port), "protocol": "TCP"}],
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
    }
    return [{"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": {"ports": ports}}, slices]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _ends(root: Path, nginx: Nginx) -> AsyncIterator[Ends]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await made.answer(request, writer)

    (root / "picker").mkdir()
    async with (
        served_picker(root / "picker", ext_proc={"tls": True}) as picker,
        serve(answer, name="a") as a,
        serve(answer, name="b") as b,
        run_gateway(root, nginx) as gateway,
        client_of(gateway) as http,
    ):
        made = Ends(http, picker, (a, b))
        gpu, *slices = pool("gpu", a.address, b.address)
        gpu["spec"]["endpointPickerRef"] = {"name": "gpu-picker", "port": {"number": 9002}, "failureMode": "FailClose"}
        namespace = gpu["metadata"].get("namespace", "default")
        service = _service("gpu-picker", picker.address)
        for item in service:
            item["metadata"]["namespace"] = namespace
        await made.begin()
        await gateway.apply("pools.yaml", gpu, *slices, *service, route("all", rule(to_pool("gpu"))))
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def ends(_ends: Ends) -> AsyncIterator[Ends]:
    """As it begins; nothing is in hand after a test."""
    await _ends.begin()
    yield _ends
    await _ends.picker.at_rest()


@pytest.mark.parametrize("size", [2, 60_000, 400_000, 1_200_000])
async def test_prompt_reaches_the_pod_that_was_picked(ends: Ends, size: int) -> None:
    body = json.dumps({"model": "m", "prompt": "x" * size}).encode()
    answer = await ends.http.post("/v1/completions", content=body)
    assert answer.status_code == 200, answer.text
    assert [request.body for request in ends.requests] == [body]
    decision = (await ends.picker.decisions())[0]
    assert decision["promptTokens"] >= size // 4
    assert decision["choice"] in {pod.address for pod in ends.pods}


async def test_same_prompts_go_to_the_same_pod(ends: Ends) -> None:
    body = json.dumps({"model": "m", "prompt": "y" * 20_000}).encode()
    answers = []
    for _ in range(4):
        answers.append((await ends.http.post("/v1/completions", content=body)).json()["server"])
        await ends.picker.at_rest()
    assert len(set(answers)) == 1


async def test_request_without_body_is_picked(ends: Ends) -> None:
    assert (await ends.http.get("/v1/things")).status_code == 200


async def test_refusal_reaches_the_client_as_it_is(ends: Ends) -> None:
    await ends.picker.serving()
    answer = await ends.http.post(CHAT, content=bytes(100_000))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert answer.json()["error"]["code"] == "no_endpoints"
    assert ends.requests == []


async def test_events_leave_one_by_one(ends: Ends) -> None:
    sent = asyncio.Semaphore(0)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await sent.acquire()
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    ends.answer = answer
    before = await ends.picker.metric("infergate_first_bytes_total")
    async with asyncio.timeout(20):
        async with ends.http.stream("POST", CHAT, json={"stream": True}) as answered:
            events = answered.aiter_raw()
            for number in range(5):
                assert await ends.picker.metric("infergate_inflight_requests") == 1
                sent.release()
                assert await anext(events) == b"data: %d\n\n" % number
            assert [event async for event in events] == []
    await ends.picker.at_rest()
    assert await ends.picker.metric("infergate_first_bytes_total") == before + 1


async def test_hang_up_reaches_the_picker(ends: Ends) -> None:
    gone = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await request.hung_up()
        gone.set()

    ends.answer = answer
    async with ends.http.stream("POST", CHAT, json={"stream": True}) as answered:
        await anext(answered.aiter_raw())
    async with asyncio.timeout(30):
        await gone.wait()
    await ends.picker.at_rest()


async def test_client_that_hangs_up_in_the_queue_is_seen_by_no_pod(ends: Ends) -> None:
    go_on = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await describe(request, writer)

    async def waiting(count: int) -> None:
        async def is_so() -> bool:
            return await ends.picker.metric("infergate_flow_control_queue_size") == count

        await eventually(is_so)

    ends.answer = answer
    await ends.picker.serving(ends.pods[0].address, policy=ONE_AT_A_TIME)
    first = asyncio.create_task(ends.http.post(CHAT, content=b"{}"))

    async def is_in_flight() -> bool:
        return await ends.picker.metric("infergate_inflight_requests") == 1

    await eventually(is_in_flight)
    second = asyncio.create_task(ends.http.post(CHAT, content=b"{}"))
    await waiting(1)
    second.cancel()
    await waiting(0)
    go_on.set()
    assert (await first).status_code == 200
    assert len(ends.requests) == 1


@pytest.mark.parametrize("size", [1, 200_000, 20_000_000])
async def test_pod_that_fails_is_counted_and_another_one_serves(ends: Ends, size: int) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        first.append(request.server)
        await (reset if request.server == first[0] else describe)(request, writer)

    async def failures() -> float:
        return await ends.picker.metric("infergate_endpoint_failures_total", reason="closed")

    first: list[str] = []
    ends.answer, before = answer, await failures()
    answered = await ends.http.post(CHAT, content=bytes(size), timeout=60)
    assert (answered.status_code, answered.json()["size"]) == (200, size)
    assert answered.json()["server"] != first[0]
    await ends.picker.at_rest()
    assert await failures() == before + 1
    assert [decision["tries"] for decision in (await ends.picker.decisions())[:2]] == [1, 0]
