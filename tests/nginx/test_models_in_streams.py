"""Streams, and clients that leave, where the model of a request is read or rewritten."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.simulator.pod import Pod
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, until
from tests.nginx.resources import Json, model_rewrite, pool, renamed, route, rule, to_pool
from tests.nginx.servers import Request, connect, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SOON = 1.0
"""Seconds within which a pod learns that its client left."""
EVENTS = [
    b'data: {"id":"1","model":"base","choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(40)
]
END = b"data: [DONE]\n\n"
PLACES = [("read.example", "base"), ("rewritten.example", "alias"), ("rewritten.example", "base")]
"""Hostnames and models: chosen by the model, with another one, and one that keeps its name beside others."""


def _by_name(model: str) -> Json:
    return {"headers": [{"name": "X-Gateway-Model-Name", "value": model}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated(gateway: Gateway) -> AsyncIterator[Pod]:
    async with await simulate([PodSettings(name="a", model="base")]) as simulation:
        address = simulation.addresses["a"]
        await gateway.apply(
            "routes.yaml",
            pool("read", address),
            pool("rewritten", address),
            model_rewrite("alias", "rewritten", renamed("alias", base=1)),
            route("read", rule(to_pool("read"), matches=[_by_name("base")]), hostnames=["read.example"]),
            route("rewritten", rule(to_pool("rewritten")), hostnames=["rewritten.example"]),
        )
        yield simulation.pod("a")


@pytest.fixture
def pod(simulated: Pod) -> Pod:
    """Without arrivals."""
    simulated.arrivals.clear()
    return simulated


def _request(host: str, model: str, *, stream: bool) -> bytes:
    asked = {"prompt": "hello", "max_tokens": 2000, "ignore_eos": True, "stream": stream, "model": model}
    body = json.dumps(asked).encode()
    return f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("host", "model"), PLACES)
async def test_hang_up_reaches_the_pod(gateway: Gateway, pod: Pod, host: str, model: str, stream: bool) -> None:
    async with connect(gateway.port) as (reader, writer):
        writer.write(_request(host, model, stream=stream))
        if stream:
            await reader.readuntil(b"data: ")
        await until(lambda: pod.arrivals and pod.arrivals[0].body_sha256)
        (arrival,) = pod.arrivals
        assert (arrival.model, arrival.aborted) == ("base", False)
    await until(lambda: arrival.aborted, seconds=SOON)
    await gateway.idle()


@pytest.mark.parametrize("head", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("host", "model"), PLACES)
async def test_hang_up_in_an_upload_leaves_nothing(
    gateway: Gateway, pod: Pod, host: str, model: str, head: bytes
) -> None:
    identity = f"{host}-{model}-{head[:1].decode()}"
    begun = b'{"model":"%s","prompt":"%s' % (model.encode(), b"x" * 500_000)
    if head.startswith(b"T"):
        begun = b"%x\r\n%s\r\n" % (len(begun), begun)
    async with connect(gateway.port) as (_, writer):
        writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {identity}\r\n".encode())
        writer.write(head + b"\r\n\r\n" + begun)
        await writer.drain()
    assert (await gateway.logged(identity))["status"] in (400, 499)
    assert len(pod.arrivals) == 0
    assert not any(path.is_file() for path in (gateway.state.root / "tmp" / "client_body").rglob("*"))
    await gateway.idle()


@pytest.mark.parametrize(("host", "model"), PLACES)
async def test_stream_is_byte_equal_but_for_an_alias_and_each_event_leaves_at_once(
    gateway: Gateway, http: httpx.AsyncClient, host: str, model: str
) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while event := await told.get():
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    async with serve(answer) as other:
        await gateway.apply(
            "other.yaml",
            pool("other", other.address),
            model_rewrite("other", "other", renamed("alias", base=1)),
            route("other", rule(to_pool("other"), matches=[_by_name(model)]), hostnames=[f"other.{host}"]),
        )
        await gateway.knows("default/other", other.address)
        body = {"model": model, "prompt": "x", "stream": True}
        headers = {"host": f"other.{host}", "accept-encoding": "gzip"}
        async with (
            asyncio.timeout(15),
            http.stream("POST", "/v1/completions", json=body, headers=headers) as taken,
        ):
            pieces = taken.aiter_raw()
            for event in (*EVENTS, END):
                told.put_nowait(event)
                expected = event.replace(b'"model":"base"', b'"model":"%s"' % model.encode())
                received = b""
                while len(received) < len(expected):
                    received += await anext(pieces)
                assert received == expected
            told.put_nowait(b"")
            assert [piece async for piece in pieces] == []
