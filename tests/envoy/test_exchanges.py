"""Requests of clients through a real Envoy that asks our picker."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.envoy.proxy import Envoy, run_envoy
from tests.nginx.http2 import serve_http2
from tests.nginx.servers import Backend, Request, describe, serve
from tests.picker.ext_proc.conftest import ONE_AT_A_TIME, Served, eventually, served_picker

CHAT = "/v1/chat/completions"


@dataclass
class Site:
    """An Envoy, its picker and a pod."""

    envoy: Envoy
    picker: Served
    pod: Backend

    @property
    def http(self) -> httpx.AsyncClient:
        return self.envoy.http


@asynccontextmanager
async def site(binary: Path, directory: Path, **settings: Any) -> AsyncIterator[Site]:  # Any: of run_envoy
    async with served_picker(directory) as picker, serve(settings.pop("answer", describe)) as pod:
        await picker.serving(pod.address)
        async with run_envoy(binary, directory, picker.address, **settings) as envoy:
            yield Site(envoy, picker, pod)


@pytest.fixture
async def found(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[Site]:
    async with site(envoy_binary, tmp_path) as made:
        yield made


@pytest.mark.parametrize("size", [2, 1_000, 62_000, 400_000, 1_200_000])
async def test_prompt_reaches_the_pod_that_was_picked(found: Site, size: int) -> None:
    body = json.dumps({"model": "m", "prompt": "x" * size}).encode()
    answer = await found.http.post("/v1/completions", content=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["size"], found.pod.requests[0].body) == (len(body), body)
    await found.picker.at_rest()
    assert await found.picker.metric("infergate_ext_proc_streams_ended_total", end="whole") == 1
    assert await found.picker.metric("infergate_endpoint_failures_total") == 0


async def test_request_without_body_is_picked(found: Site) -> None:
    answer = await found.http.get("/v1/things", headers={"x-infergate-priority": "1"})
    assert (answer.status_code, answer.json()["target"]) == (200, "/v1/things")
    names = {name for name, _ in found.pod.requests[0].headers}
    assert "x-infergate-priority" not in names
    await found.picker.at_rest()


async def test_chunked_upload_is_picked_by_its_prompt(found: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"model":"m",'
        yield b'"prompt":"%b"}' % (b"x" * 100_000)

    answer = await found.http.post("/v1/completions", content=pieces())
    assert (answer.status_code, answer.json()["size"]) == (200, 100_025)
    assert (await found.picker.decisions())[0]["promptTokens"] > 20_000


@pytest.mark.parametrize("mode", ["BUFFERED", "STREAMED", "NONE"])
async def test_bodies_may_be_sent_in_other_ways(envoy_binary: Path, tmp_path: Path, mode: str) -> None:
    body = json.dumps({"model": "m", "prompt": "x" * 20_000}).encode()
    async with site(envoy_binary, tmp_path, mode=mode, response_mode="STREAMED") as made:
        answer = await made.http.post("/v1/completions", content=body)
        assert (answer.status_code, made.pod.requests[0].body) == (200, body)
        await made.picker.at_rest()
        decision = (await made.picker.decisions())[0]
        assert (decision["promptTokens"] > 0) is (mode == "BUFFERED")


async def test_picker_is_asked_over_tls_with_a_certificate_that_nobody_signed(
    envoy_binary: Path, tmp_path: Path
) -> None:
    async with served_picker(tmp_path, ext_proc={"tls": True}) as picker, serve() as pod:
        await picker.serving(pod.address)
        async with run_envoy(envoy_binary, tmp_path, picker.address, tls=True) as envoy:
            assert (await envoy.http.post(CHAT, content=b"{}")).status_code == 200
            assert await envoy.stat("cluster.picker.ssl.handshake") > 0


async def test_pods_may_speak_http_2(envoy_binary: Path, tmp_path: Path) -> None:
    body = bytes(400_000)
    async with served_picker(tmp_path) as picker, serve_http2() as pod:
        await picker.serving(pod)
        async with run_envoy(envoy_binary, tmp_path, picker.address, h2c=True) as envoy:
            answer = await envoy.http.post(CHAT, content=body)
            assert (answer.status_code, answer.json()["size"]) == (200, len(body))
            await picker.at_rest()


async def test_choice_stays_within_the_subset_of_the_gateway(envoy_binary: Path, tmp_path: Path) -> None:
    async with served_picker(tmp_path) as picker, serve(name="a") as first, serve(name="b") as second:
        await picker.serving(first.address, second.address)
        async with run_envoy(envoy_binary, tmp_path, picker.address, subset=second.address) as envoy:
            answers = [(await envoy.http.get("/v1/things")).json()["server"] for _ in range(4)]
    assert answers == ["b"] * 4


async def test_refusal_reaches_the_client_as_it_is(found: Site) -> None:
    await found.picker.serving()
    for request in (found.http.get("/v1/things"), found.http.post(CHAT, content=bytes(400_000))):
        answer = await request
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
        assert answer.json()["error"]["code"] == "no_endpoints"
    await found.picker.at_rest()


class _Events:
    """A pod that sends an event each time it is told to."""

    def __init__(self) -> None:
        self.sent = asyncio.Semaphore(0)
        self.gone = asyncio.Event()

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        watch = asyncio.ensure_future(request.hung_up())
        watch.add_done_callback(lambda _: self.gone.set())
        for number in range(10):
            await self.sent.acquire()
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")
        watch.cancel()


async def test_events_leave_one_by_one(envoy_binary: Path, tmp_path: Path) -> None:
    pod = _Events()
    async with (
        site(envoy_binary, tmp_path, answer=pod.answer) as made,
        made.http.stream("POST", CHAT, json={"stream": True}) as answer,
    ):
        events = answer.aiter_raw()
        for number in range(10):
            assert await made.picker.metric("infergate_inflight_requests") == 1
            pod.sent.release()
            assert await anext(events) == b"data: %d\n\n" % number
        assert [event async for event in events] == []
        await made.picker.at_rest()
        assert await made.picker.metric("infergate_first_bytes_total") == 1


async def test_hang_up_within_an_answer_reaches_the_pod_and_the_picker(envoy_binary: Path, tmp_path: Path) -> None:
    pod = _Events()
    async with site(envoy_binary, tmp_path, answer=pod.answer) as made:
        async with made.http.stream("POST", CHAT, json={"stream": True}) as answer:
            pod.sent.release()
            await anext(answer.aiter_raw())
        async with asyncio.timeout(30):
            await pod.gone.wait()
        await made.picker.at_rest()
        assert await made.picker.metric("infergate_endpoint_failures_total") == 0


async def test_client_that_hangs_up_in_the_queue_is_seen_by_no_pod(envoy_binary: Path, tmp_path: Path) -> None:
    pod = _Events()
    async with site(envoy_binary, tmp_path, answer=pod.answer) as made:
        await made.picker.serving(made.pod.address, policy=ONE_AT_A_TIME)
        async with made.http.stream("POST", CHAT, json={"stream": True}) as answer:
            pod.sent.release()
            # Kept: a stream whose pieces nobody waits for is closed.
            events = answer.aiter_raw()
            await anext(events)
            waiting = asyncio.create_task(made.http.post(CHAT, content=b"{}"))
            await _waiting(made.picker, 1)
            waiting.cancel()
            await _waiting(made.picker, 0)
        await made.picker.at_rest()
        assert len(made.pod.requests) == 1


async def _waiting(picker: Served, count: int) -> None:
    async def is_so() -> bool:
        return await picker.metric("infergate_flow_control_queue_size") == count

    await eventually(is_so)


async def test_request_that_waits_goes_on_when_there_is_room(envoy_binary: Path, tmp_path: Path) -> None:
    pod = _Events()
    async with site(envoy_binary, tmp_path, answer=pod.answer) as made:
        await made.picker.serving(made.pod.address, policy=ONE_AT_A_TIME)
        first = asyncio.create_task(made.http.post(CHAT, content=bytes(300_000)))
        await eventually(lambda: _is_in_flight(made.picker))
        second = asyncio.create_task(made.http.post(CHAT, content=bytes(300_000)))
        await _waiting(made.picker, 1)
        for _ in range(20):
            pod.sent.release()
        assert [(await one).status_code for one in (first, second)] == [200, 200]
        await made.picker.at_rest()


async def _is_in_flight(picker: Served) -> bool:
    return await picker.metric("infergate_inflight_requests") > 0


async def test_pod_that_does_not_answer_in_time_is_the_gateways_504(envoy_binary: Path, tmp_path: Path) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await request.hung_up()

    async with site(envoy_binary, tmp_path, answer=answer, timeout="1s") as made:
        assert (await made.http.post(CHAT, content=b"{}")).status_code == 504
        await made.picker.at_rest()
        assert await made.picker.metric("infergate_endpoint_failures_total") == 1


async def test_two_hundred_prompts_at_once_leave_nothing_behind(found: Site) -> None:
    body = json.dumps({"model": "m", "prompt": "x" * 100_000}).encode()
    answers = await asyncio.gather(*(found.http.post("/v1/completions", content=body) for _ in range(200)))
    assert {(answer.status_code, answer.json()["size"]) for answer in answers} == {(200, len(body))}
    await found.picker.at_rest()
    assert await found.picker.metric("infergate_picks_total", outcome="picked") == 200
