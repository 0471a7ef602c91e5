"""Pods as processes: arrivals, faults, hang-ups, ports."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets

from controller.simulator.faults import Fault
from controller.simulator.pods import PortUnavailable, Simulation, serve
from controller.simulator.settings import PodSettings

Start = Callable[..., Awaitable[Simulation]]
Json = dict[str, Any]  # JSON has any shape

LONG = {"model": "base", "prompt": "x", "max_tokens": 2000, "ignore_eos": True}
SHORT = {"model": "base", "prompt": "x", "max_tokens": 1}


def _url(simulation: Simulation, path: str, *, pod: str = "a") -> str:
    return f"http://{simulation.addresses[pod]}{path}"


async def _complete(http: httpx.AsyncClient, simulation: Simulation, *, pod: str = "a") -> httpx.Response:
    return await http.post(_url(simulation, "/v1/completions", pod=pod), json=SHORT)


async def _arrivals(http: httpx.AsyncClient, simulation: Simulation) -> list[Json]:
    answer: list[Json] = (await http.get(_url(simulation, "/simulator/requests"))).json()
    return answer


async def _until(statement: Callable[[], bool]) -> None:
    """Lets the event loop run until a statement holds."""
    async with asyncio.timeout(5):
        while not statement():  # noqa: ASYNC110  # nothing tells when a peer's close was seen
            await asyncio.sleep(0)


def _reads(simulation: Simulation, name: str, value: float) -> bool:
    line = f'vllm:{name}{{model_name="base",engine="0"}} {value}\n'
    return line.encode() in simulation.pod("a").metrics()


async def test_arrivals_say_what_came(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    headers = [("x-twice", "1"), ("x-twice", "2")]
    await http.post(_url(simulation, "/v1/completions?a=b"), json=SHORT, headers=headers)
    for path in ("/health", "/metrics", "/simulator/pods"):
        await http.get(_url(simulation, path))
    (arrival,) = await _arrivals(http, simulation)
    assert (arrival["method"], arrival["path"], arrival["model"]) == ("POST", "/v1/completions?a=b", "base")
    assert (arrival["status"], arrival["aborted"]) == (200, False)
    assert arrival["headers"]["x-twice"] == "1, 2"


async def test_arrivals_can_be_cleared(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    await _complete(http, simulation)
    assert (await http.delete(_url(simulation, "/simulator/requests"))).json() == {"cleared": 1}
    assert await _arrivals(http, simulation) == []


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_its_slot_and_blocks(
    start: Start, http: httpx.AsyncClient, streamed: bool
) -> None:
    simulation = await start(speed=1)
    body = json.dumps({**LONG, "stream": streamed}).encode()
    host, port = simulation.addresses["a"].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    if streamed:
        await reader.readuntil(b"data: ")
    await _until(lambda: _reads(simulation, "num_requests_running", 1))
    writer.close()
    await _until(lambda: _reads(simulation, "num_requests_running", 0))
    assert _reads(simulation, "kv_cache_usage_perc", 0.0)
    assert (await _arrivals(http, simulation))[0]["aborted"] is True


async def test_an_error_strikes_as_often_as_asked(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    fault = {"kind": "error", "status": 503, "count": 2}
    await http.post(_url(simulation, "/simulator/fault"), json=fault)
    answers = [await _complete(http, simulation) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].json()["error"]["type"] == "ServiceUnavailableError"


@pytest.mark.parametrize(("paths", "status"), [("inference", 200), ("all", 500)])
async def test_a_fault_strikes_inference_unless_it_says_all(
    start: Start, http: httpx.AsyncClient, paths: str, status: int
) -> None:
    simulation = await start()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "error", "paths": paths})
    assert (await http.get(_url(simulation, "/metrics"))).status_code == status


async def test_a_pod_whose_metrics_hang_serves(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "hang", "paths": "metrics"})
    scrape = asyncio.create_task(http.get(_url(simulation, "/metrics")))
    assert (await _complete(http, simulation)).status_code == 200
    assert not scrape.done()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "none"})
    assert (await scrape).status_code == 200


async def test_a_reset_comes_before_any_byte(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "reset", "count": 1})
    with pytest.raises(httpx.ReadError):
        await _complete(http, simulation)
    assert (await _complete(http, simulation)).status_code == 200
    first = (await _arrivals(http, simulation))[0]
    assert (first["status"], first["aborted"]) == (None, True)


async def test_a_pod_that_hangs_answers_when_it_recovers(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "hang"})
    waiting = asyncio.create_task(_complete(http, simulation))
    await _until(lambda: len(simulation.pod("a").arrivals) == 1)
    assert (await http.get(_url(simulation, "/health"))).status_code == 200
    assert not waiting.done()
    await http.post(_url(simulation, "/simulator/fault"), json={"kind": "none"})
    assert (await waiting).status_code == 200


async def test_a_hang_stops_answers_that_have_begun(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    body = {**LONG, "stream": True}
    async with http.stream("POST", _url(simulation, "/v1/completions"), json=body) as answer:
        chunks = answer.aiter_bytes()
        await anext(chunks)
        await simulation.set_fault("a", Fault.model_validate({"kind": "hang"}))
        before = simulation.pod("a").metrics()
        await http.get(_url(simulation, "/health"))
        assert simulation.pod("a").metrics() == before
        await simulation.set_fault("a", Fault.model_validate({"kind": "none"}))
        rest = b"".join([chunk async for chunk in chunks])
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_a_hanging_pod_is_seen(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start()
    await simulation.set_fault("a", Fault.model_validate({"kind": "hang", "count": 1}))
    waiting = asyncio.create_task(_complete(http, simulation))
    await _until(lambda: len(simulation.pod("a").arrivals) == 1)
    waiting.cancel()
    await _until(lambda: simulation.pod("a").arrivals[0].aborted)
    assert (await _complete(http, simulation)).status_code == 200


async def test_a_slow_pod_takes_longer_until_it_recovers(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start(speed=100, noise=0)
    await simulation.set_fault("a", Fault.model_validate({"kind": "slow", "factor": 10}))
    await _complete(http, simulation)
    slow = _sum(simulation)
    await simulation.set_fault("a", Fault.model_validate({"kind": "none"}))
    await _complete(http, simulation)
    assert slow == pytest.approx(10 * (_sum(simulation) - slow), rel=0.01)


def _sum(simulation: Simulation) -> float:
    name = b"vllm:time_to_first_token_seconds_sum{"
    (line,) = (line for line in simulation.pod("a").metrics().splitlines() if line.startswith(name))
    return float(line.split()[-1])


async def test_a_dead_pod_refuses_connections_and_can_be_revived(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start("a", "b")
    await _complete(http, simulation)
    died = await http.post(_url(simulation, "/simulator/fault"), json={"kind": "die"})
    assert died.status_code == 200
    with pytest.raises(httpx.ConnectError):
        await _complete(http, simulation)
    pods = (await http.get(_url(simulation, "/simulator/pods", pod="b"))).json()
    assert [pod["alive"] for pod in pods] == [False, True]
    await http.post(_url(simulation, "/simulator/pods/a/fault", pod="b"), json={"kind": "none"})
    assert (await _complete(http, simulation)).headers["x-simulated-pod"] == "a"
    assert _reads(simulation, "generation_tokens_total", 1)


async def test_a_pod_that_dies_drops_its_connections(start: Start, http: httpx.AsyncClient) -> None:
    simulation = await start("a", "b", speed=1)
    dropped = asyncio.create_task(http.post(_url(simulation, "/v1/completions"), json=LONG))
    await _until(lambda: _reads(simulation, "num_requests_running", 1))
    await http.post(_url(simulation, "/simulator/pods/a/fault", pod="b"), json={"kind": "die"})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await dropped
    assert simulation.pod("a").arrivals[0].aborted


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/simulator/fault", {"kind": "sulk"}, 400),
        ("/simulator/fault", {"kind": "slow", "count": 1}, 400),
        ("/simulator/pods/other/fault", {"kind": "none"}, 404),
    ],
)
async def test_a_wrong_fault_is_refused(
    start: Start, http: httpx.AsyncClient, path: str, body: Json, status: int
) -> None:
    simulation = await start()
    assert (await http.post(_url(simulation, path), json=body)).status_code == status


async def test_realtime_echoes_until_the_pod_dies(start: Start) -> None:
    simulation = await start()
    async with websockets.connect(f"ws://{simulation.addresses['a']}/v1/realtime") as socket:
        assert socket.response is not None
        assert socket.response.headers["x-simulated-pod"] == "a"
        for message in ("text", b"\0bytes"):
            await socket.send(message)
            assert await socket.recv() == message
        await simulation.set_fault("a", Fault.model_validate({"kind": "die"}))
        with pytest.raises(websockets.ConnectionClosedError):
            await socket.recv()


async def test_another_path_is_no_websocket(start: Start) -> None:
    simulation = await start()
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(f"ws://{simulation.addresses['a']}/v1/models"):
            pass


async def test_a_taken_port_is_reported(start: Start) -> None:
    address = (await start()).addresses["a"]
    taken = PodSettings(name="b", model="base", port=int(address.split(":")[1]))
    with pytest.raises(PortUnavailable, match=f"{address}: Address already in use"):
        await serve([taken])


async def test_names_are_unique(start: Start) -> None:
    with pytest.raises(ValueError, match="names of pods are not unique: a, a"):
        await start("a", "a")
