"""Requests through a real Envoy whose model stands for another one."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.pools import ModelRewrite, ModelTarget
from tests.envoy.proxy import run_envoy
from tests.nginx.http2 import serve_http2
from tests.nginx.servers import Request, response, serve
from tests.picker.ext_proc.conftest import served_picker

CHAT = "/v1/chat/completions"
REWRITES = (ModelRewrite("alias, rule 0", (ModelTarget("target-model", 1),), ("chat",)),)
EVENT = b'data: {"id":"1","model":"%b"}\n\n'
MODES = ["FULL_DUPLEX_STREAMED", "BUFFERED", "BUFFERED_PARTIAL"]


async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
    """As a model server: names the model that it was asked for."""
    model = json.loads(request.body)["model"].encode()
    if b'"stream":true' not in request.body:
        writer.write(response(b'{"id":"1","model":"%b"}' % model, "Content-Type: application/json"))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        event = EVENT % model
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
    writer.write(b"0\r\n\r\n")


def body_of(size: int, *, model: bytes = b"chat") -> bytes:
    return b'{"messages":[{"content":"%b"}],"model":"%b"}' % (b"x" * size, model)


@pytest.mark.parametrize("response_mode", [*MODES, "STREAMED", "NONE"])
@pytest.mark.parametrize("mode", MODES)
async def test_pod_gets_the_target_and_the_client_the_name_that_it_asked_for(
    envoy_binary: Path, tmp_path: Path, mode: str, response_mode: str
) -> None:
    async with serve(answer) as pod, served_picker(tmp_path) as picker:
        await picker.serving(pod.address, rewrites=REWRITES)
        async with run_envoy(envoy_binary, tmp_path, picker.address, mode=mode, response_mode=response_mode) as envoy:
            for size in (10, 20_000):
                told = await envoy.http.post(CHAT, content=body_of(size))
                assert told.status_code == 200, told.text
                assert told.json()["model"] == ("target-model" if response_mode == "NONE" else "chat")
            await picker.at_rest()
    assert [request.body for request in pod.requests] == [body_of(size, model=b"target-model") for size in (10, 20_000)]


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 10_000):
        yield body[at : at + 10_000]


@pytest.mark.parametrize("mode", MODES[:2])
async def test_body_of_unknown_length_names_the_target(envoy_binary: Path, tmp_path: Path, mode: str) -> None:
    async with serve(answer) as pod, served_picker(tmp_path) as picker:
        await picker.serving(pod.address, rewrites=REWRITES)
        async with run_envoy(envoy_binary, tmp_path, picker.address, mode=mode) as envoy:
            told = await envoy.http.post(CHAT, content=_pieces(body_of(25_000)))
            assert (told.status_code, told.json()["model"]) == (200, "chat")
    assert pod.requests[0].body == body_of(25_000, model=b"target-model")


async def test_large_body_names_the_target(envoy_binary: Path, tmp_path: Path) -> None:
    async with serve(answer) as pod, served_picker(tmp_path) as picker:
        await picker.serving(pod.address, rewrites=REWRITES)
        async with run_envoy(envoy_binary, tmp_path, picker.address) as envoy:
            assert (await envoy.http.post(CHAT, content=body_of(2_000_000))).status_code == 200
    assert pod.requests[0].body == body_of(2_000_000, model=b"target-model")


async def test_pod_of_http_2_gets_the_target(envoy_binary: Path, tmp_path: Path) -> None:
    async with serve_http2() as pod, served_picker(tmp_path) as picker:
        await picker.serving(pod, rewrites=REWRITES)
        async with run_envoy(envoy_binary, tmp_path, picker.address, h2c=True) as envoy:
            told = (await envoy.http.post(CHAT, content=body_of(100_000))).json()
    assert told["size"] == len(body_of(100_000, model=b"target-model"))


@pytest.mark.parametrize("mode", [MODES[0], "STREAMED"])
async def test_events_have_the_name_that_was_asked_for(envoy_binary: Path, tmp_path: Path, mode: str) -> None:
    request_mode = mode if mode in MODES else "BUFFERED"
    async with serve(answer) as pod, served_picker(tmp_path) as picker:
        await picker.serving(pod.address, rewrites=REWRITES)
        async with run_envoy(envoy_binary, tmp_path, picker.address, mode=request_mode, response_mode=mode) as envoy:
            told = await envoy.http.post(CHAT, content=b'{"model":"chat","stream":true}')
            assert told.content == EVENT % b"chat" * 5
