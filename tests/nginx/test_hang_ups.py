"""A client that leaves stops the model server's work, and the picker knows."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from controller.simulator.arrivals import Arrival
from controller.simulator.faults import Fault, FaultKind
from controller.simulator.pod import Pod
from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, until
from tests.nginx.resources import pool, route, rule, to_pool
from tests.nginx.servers import Request, connect, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SOON = 1.0
"""Seconds within which a pod learns of it; it takes about 10 ms."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation(gateway: Gateway) -> AsyncIterator[Simulation]:
    async with await simulate([PodSettings(name="a", model="base")]) as simulation:
        await gateway.apply("routes.yaml", pool("gpu", simulation.addresses["a"]), route("all", rule(to_pool("gpu"))))
        yield simulation


@pytest_asyncio.fixture(loop_scope="module")
async def pod(simulation: Simulation) -> AsyncIterator[Pod]:
    """A pod without arrivals, and without a fault afterwards."""
    simulation.pod("a").arrivals.clear()
    yield simulation.pod("a")
    await simulation.set_fault("a", Fault(kind=FaultKind.NONE))


def _prompt(*, stream: bool) -> bytes:
    body = {"model": "base", "prompt": "hello", "max_tokens": 2000, "ignore_eos": True, "stream": stream}
    return json.dumps(body).encode()


def _request(*, stream: bool) -> bytes:
    body = _prompt(stream=stream)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _arrived(pod: Pod) -> Arrival:
    await until(lambda: len(pod.arrivals) == 1 and pod.arrivals[0].body_sha256)
    return pod.arrivals[0]


async def test_hang_up_in_the_middle_of_a_stream_reaches_the_pod(gateway: Gateway, pod: Pod) -> None:
    async with connect(gateway.port) as (reader, writer):
        writer.write(_request(stream=True))
        await reader.readuntil(b"data: ")
        arrival = await _arrived(pod)
        assert not arrival.aborted
        assert await gateway.in_flight() == 1
    await until(lambda: arrival.aborted, seconds=SOON)
    await gateway.idle()


async def test_hang_up_before_the_first_byte_reaches_the_pod(gateway: Gateway, pod: Pod) -> None:
    async with connect(gateway.port) as (_, writer):
        writer.write(_request(stream=False))
        arrival = await _arrived(pod)
    await until(lambda: arrival.aborted, seconds=SOON)
    assert arrival.status is None
    await gateway.idle()


async def test_hang_up_on_a_pod_that_hangs_reaches_it(gateway: Gateway, simulation: Simulation, pod: Pod) -> None:
    await simulation.set_fault("a", Fault(kind=FaultKind.HANG))
    async with connect(gateway.port) as (_, writer):
        writer.write(_request(stream=True))
        arrival = await _arrived(pod)
    await until(lambda: arrival.aborted, seconds=SOON)
    await gateway.idle()


async def test_cancelled_stream_of_http2_reaches_the_pod(gateway: Gateway, pod: Pod) -> None:
    client = H2Connection()
    client.initiate_connection()
    pseudo = {":method": "POST", ":path": "/v1/completions", ":scheme": "http", ":authority": "a"}
    client.send_headers(1, list(pseudo.items()))
    client.send_data(1, _prompt(stream=True), end_stream=True)
    async with connect(gateway.port) as (_, writer):
        writer.write(client.data_to_send())
        arrival = await _arrived(pod)
        client.reset_stream(1, ErrorCodes.CANCEL)
        writer.write(client.data_to_send())
        # The connection stays open: only the stream was reset.
        await until(lambda: arrival.aborted, seconds=SOON)
    await gateway.idle()


async def test_hang_up_in_the_middle_of_an_upload_reaches_no_pod(gateway: Gateway, pod: Pod) -> None:
    async with connect(gateway.port) as (_, writer):
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Request-Id: cut-off\r\nContent-Length: 900000\r\n\r\n"
        )
        writer.write(b"x" * 500_000)
        await writer.drain()
    assert (await gateway.logged("cut-off"))["status"] in (400, 499)
    assert len(pod.arrivals) == 0
    await gateway.idle()


async def test_many_hang_ups_leave_nothing_in_flight(gateway: Gateway, pod: Pod) -> None:
    async def leave() -> None:
        async with connect(gateway.port) as (_, writer):
            writer.write(_request(stream=True))
            await writer.drain()

    for _ in range(10):
        await asyncio.gather(*(leave() for _ in range(20)))
    await gateway.idle()
    await until(lambda: all(arrival.aborted for arrival in pod.arrivals))


@pytest.mark.parametrize("reads_all", [False, True])
async def test_only_whole_answers_tell_how_long_they_take(
    gateway: Gateway, http: httpx.AsyncClient, pod: Pod, reads_all: bool
) -> None:
    learned = 'infergate_learned_residence_seconds{pool="default/gpu"}'
    before = (await gateway.metrics())[learned]
    body = json.loads(_prompt(stream=True)) | ({"max_tokens": 3} if reads_all else {})
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        await (answer.aread() if reads_all else anext(answer.aiter_raw()))
    await gateway.idle()
    assert ((await gateway.metrics())[learned] != before) is reads_all


async def test_hang_up_is_logged_as_499(gateway: Gateway, http: httpx.AsyncClient, pod: Pod) -> None:
    headers = {"X-Request-Id": "left-early"}
    async with http.stream("POST", "/v1/completions", content=_prompt(stream=True), headers=headers) as answer:
        await anext(answer.aiter_raw())
    line = await gateway.logged("left-early")
    assert line["status"] in (200, 499)
    assert line["tries"] == 1


async def test_requests_of_a_killed_worker_are_over_where_the_pod_does_not_count_them(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    asked = asyncio.Event()

    async def hang(_: Request, __: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.Future()

    async with serve(hang) as backend:
        silent = route("silent", rule(to_pool("silent"), path="/silent"))
        await gateway.apply("silent.yaml", pool("silent", backend.address), silent)
        await gateway.knows("default/silent", backend.address)
        request = asyncio.create_task(http.post("/silent"))
        await asyncio.wait_for(asked.wait(), SOON)
        assert await gateway.in_flight() == 1
        for pid in gateway.workers():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await request
        await gateway.idle()
        assert (await gateway.pools())["pools"][-1]["endpoints"][0]["pause"] == 0
