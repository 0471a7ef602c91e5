"""How long a rule waits for a backend."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.ext_proc import as_the_field_does, serve_ext_proc
from tests.nginx.gateway import Gateway, client_of, eventually, run_gateway
from tests.nginx.resources import (
    Json,
    model_rewrite,
    picked_pool,
    picker_policy,
    pool,
    renamed,
    route,
    rule,
    service,
    to_pool,
    to_service,
)
from tests.nginx.servers import Backend, Request, response, serve, serve_picks

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SLOW = 0.8
"""Seconds that the backend takes for `/slow`."""
EVENT = b'data: {"model":"m","choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
KINDS = ["pool", "counted", "renamed", "relayed"]
"""Of pools: as they are, with their tokens read, with another model in the body, and with an external picker."""


@asynccontextmanager
async def _serve_unread() -> AsyncIterator[str]:
    """Address of a backend that accepts and reads no body."""
    is_over = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while b"\r\ncontent-length: " not in (await reader.readuntil(b"\r\n\r\n")).lower():
                writer.write(response(status="404 Not Found"))
            await is_over.wait()
        writer.transport.abort()

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    async with await asyncio.start_server(ignore, sock=listening, limit=16_384):
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        is_over.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target.endswith("/silent"):
            await request.hung_up()
        elif request.target.endswith("/slow"):
            await asyncio.sleep(SLOW)
            writer.write(response(b"late"))
        elif "/endless" in request.target:
            kind = b"text/event-stream" if request.target.endswith("/completions") else b"text/plain"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
            while not writer.is_closing():
                writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif "/events" in request.target:
            writer.write(response(EVENT + USAGE, "Content-Type: text/event-stream"))
        else:
            writer.write(response(b"soon"))

    def rules(name: str, *backends: Json) -> list[Json]:
        return [
            rule(*backends, path=f"/{name}/request", timeouts={"request": "400ms"}),
            rule(*backends, path=f"/{name}/backend", timeouts={"backendRequest": "400ms"}),
            rule(*backends, path=f"/{name}/both", timeouts={"request": "5s", "backendRequest": "400ms"}),
            rule(*backends, path=f"/{name}/never", timeouts={"request": "0s"}),
        ]

    async with serve(answer) as backend, serve_ext_proc(as_the_field_does(backend.address)) as picker:
        await gateway.apply(
            "routes.yaml",
            service("backend", backend.address),
            pool("backend", backend.address),
            route("service", *rules("service", to_service("backend"))),
            route("pool", *rules("pool", to_pool("backend"))),
            *(pool(name, backend.address) for name in ("counted", "renamed")),
            picked_pool("relayed", backend.address, pickers=[picker.address]),
            picker_policy("counted", usage=True),
            model_rewrite("names", "renamed", renamed("m", other=1)),
            *(route(name, *rules(name, to_pool(name))) for name in KINDS[1:]),
        )
        await gateway.knows("default/backend", backend.address)
        yield backend


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
@pytest.mark.parametrize("limit", ["request", "backend", "both"])
async def test_silent_backend_is_504(http: httpx.AsyncClient, kind: str, limit: str) -> None:
    begun = time.monotonic()
    answer = await http.post(f"/{kind}/{limit}/silent", content=b"x")
    assert (answer.status_code, answer.headers["content-type"]) == (504, "application/json")
    assert 0.4 <= time.monotonic() - begun < 3


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool", "rewritten"])
@pytest.mark.parametrize("limit", ["request", "backend"])
async def test_backend_that_does_not_read_is_504(
    gateway: Gateway, http: httpx.AsyncClient, kind: str, limit: str
) -> None:
    # Its own names: the backend of another case is gone.
    name = f"unread-{kind}-{limit}"
    async with _serve_unread() as address:
        field = {"request": "request", "backend": "backendRequest"}[limit]
        to = to_service(name) if kind == "service" else to_pool(name)
        await gateway.apply(
            f"{name}.yaml",
            service(name, address),
            pool(name, address),
            route(name, rule(to, path=f"/{name}", timeouts={field: "400ms"})),
            *([model_rewrite(name, name, renamed("m", other=1))] if kind == "rewritten" else []),
        )
        if kind != "service":
            await gateway.knows(f"default/{name}", address)
        begun = time.monotonic()
        answer = await http.post(f"/{name}/v1/completions", json={"model": "m", "prompt": "x" * 8_000_000}, timeout=20)
        assert answer.status_code == 504
        assert 0.4 <= time.monotonic() - begun < 6


async def test_backend_that_took_too_long_is_left(http: httpx.AsyncClient, backend: Backend) -> None:
    before = len(backend.requests)
    assert (await http.get("/service/request/slow")).status_code == 504
    assert len(backend.requests) == before + 1


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
async def test_zero_waits_on(http: httpx.AsyncClient, kind: str) -> None:
    assert (await http.get(f"/{kind}/never/slow")).content == b"late"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["service", "pool"])
async def test_answer_in_time_is_whole(http: httpx.AsyncClient, kind: str) -> None:
    assert (await http.get(f"/{kind}/request/quick")).content == b"soon"


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("path", ["/service/request/endless", "/service/backend/endless", "/pool/request/endless"])
async def test_answer_that_goes_on_is_cut_at_the_deadline(http: httpx.AsyncClient, path: str) -> None:
    begun = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(path)
    assert 0.4 <= time.monotonic() - begun < 3


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", ["request", "backend"])
async def test_stream_of_a_pool_is_cut_at_the_deadline(http: httpx.AsyncClient, kind: str, limit: str) -> None:
    begun = time.monotonic()
    got: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await _read(http, f"/{kind}/{limit}/endless/v1/chat/completions", got)
    assert 0.4 <= time.monotonic() - begun < 3
    assert b"".join(got).startswith(EVENT)


async def _read(http: httpx.AsyncClient, path: str, got: list[bytes]) -> None:
    async with asyncio.timeout(10), http.stream("POST", path, json={"model": "m", "stream": True}) as answer:
        assert answer.status_code == 200
        async for piece in answer.aiter_bytes():
            got += [piece]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", KINDS)
async def test_stream_without_a_deadline_goes_on(http: httpx.AsyncClient, kind: str) -> None:
    begun = time.monotonic()
    async with http.stream(
        "POST", f"/{kind}/never/endless/v1/chat/completions", json={"model": "m", "stream": True}
    ) as answer:
        async for _ in answer.aiter_bytes():
            if time.monotonic() - begun > 1:
                break


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", KINDS)
async def test_stream_in_time_is_whole(http: httpx.AsyncClient, kind: str) -> None:
    answer = await http.post(f"/{kind}/request/events/v1/chat/completions", json={"model": "m", "stream": True})
    assert answer.content == EVENT + USAGE


@pytest.mark.usefixtures("backend")
async def test_picker_is_told_of_a_stream_with_a_deadline(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """One script does both."""
    name = "infergate_first_bytes_total"
    before = (await gateway.metrics())[name]
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/pool/request/endless/v1/chat/completions", json={"model": "m", "stream": True})

    async def is_told() -> bool:
        return (await gateway.metrics())[name] == before + 1

    await eventually(is_told)
    body = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    answer = await http.post("/counted/request/events/v1/chat/completions", json=body)
    line = await gateway.logged(answer.headers["x-request-id"])
    assert (line["prompt_tokens"], line["completion_tokens"]) == (12, 3)


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
async def test_wait_for_the_picker_is_a_part_of_the_request_s_time(nginx: Nginx, tmp_path: Path, mode: str) -> None:
    async def wait(request: Request, writer: asyncio.StreamWriter) -> None:
        await request.hung_up()

    async with serve() as backend, run_gateway(tmp_path, nginx, picker=()) as gateway:
        limits = {"request": "400ms"}
        rules = route("llm", rule(to_pool("gpu"), timeouts=limits))
        await gateway.apply("resources.yaml", rules, pool("gpu", backend.address, mode=mode))
        (gateway.state.run / "picker.sock").unlink()
        async with serve_picks(gateway.state.run / "picker.sock", wait) as picker, client_of(gateway) as http:
            begun = time.monotonic()
            answer = await http.post("/v1/completions", json={"model": "m"})
            assert (answer.status_code, backend.requests) == (504, [])
            assert 0.4 <= time.monotonic() - begun < 3
            assert len(picker.requests) == 1
