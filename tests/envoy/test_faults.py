"""Pods and pickers that die while a real Envoy has requests of them."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of
from tests.envoy.proxy import run_envoy
from tests.nginx.servers import Request, close, describe, nobody, reset, serve
from tests.picker.ext_proc.conftest import eventually, served_picker
from tests.ports import free_ports

CHAT = "/v1/chat/completions"


async def test_pod_that_nobody_listens_at_gets_one_request(envoy_binary: Path, tmp_path: Path) -> None:
    async with served_picker(tmp_path) as picker, serve() as pod:
        with nobody() as dead:
            await picker.serving(pod.address, dead)
            async with run_envoy(envoy_binary, tmp_path, picker.address) as envoy:
                answers = [(await envoy.http.post(CHAT, content=b"{}")).status_code for _ in range(10)]
                assert answers.count(503) <= 1
                assert answers.count(200) >= 9
                await picker.at_rest()


@pytest.mark.parametrize("answer", [reset, close])
async def test_pod_that_breaks_off_is_the_gateways_503_and_counts_against_the_pod(
    envoy_binary: Path, tmp_path: Path, answer: object
) -> None:
    async with served_picker(tmp_path) as picker, serve(answer) as pod:  # type: ignore[arg-type]  # one of two
        await picker.serving(pod.address)
        async with run_envoy(envoy_binary, tmp_path, picker.address) as envoy:
            assert (await envoy.http.post(CHAT, content=b"{}")).status_code == 503
            await picker.at_rest()
            assert await picker.metric("infergate_endpoint_failures_total") == 1


async def test_pod_that_dies_within_an_answer_leaves_nothing_in_flight(envoy_binary: Path, tmp_path: Path) -> None:
    read = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
        await read.wait()
        await reset(request, writer)

    async with served_picker(tmp_path) as picker, serve(answer) as pod:
        await picker.serving(pod.address)
        async with run_envoy(envoy_binary, tmp_path, picker.address) as envoy:
            async with envoy.http.stream("POST", CHAT, content=b"{}") as answered:
                pieces = answered.aiter_raw()
                assert await anext(pieces) == b"some"
                read.set()
                with pytest.raises(httpx.TransportError):
                    await anext(pieces)
            await picker.at_rest()


@contextlib.asynccontextmanager
async def picker_process(directory: Path, port: int, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`infergate picker` as a process of its own."""
    command = (sys.executable, "-m", "controller", "picker", "--ext-proc", f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(
        *command, "--pools", directory / "pools.json", "--secure-serving=false", *more,
        stderr=asyncio.subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def publish(directory: Path, address: str) -> None:
    pool = Pool(name="llm/gpu", endpoints=(PoolEndpoint(address=address, name="llm/a"),))
    (directory / "pools.json").write_bytes(encode_pools(pools_of((pool,))))


async def test_killed_picker_is_an_error_at_once_and_a_new_one_serves(envoy_binary: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with serve() as pod:
        publish(tmp_path, pod.address)
        async with run_envoy(envoy_binary, tmp_path, f"127.0.0.1:{port}") as envoy:

            async def is_served() -> bool:
                return (await envoy.http.post(CHAT, content=bytes(100_000))).status_code == 200

            async with picker_process(tmp_path, port) as process:
                await eventually(is_served)
                process.kill()
                await process.wait()
                async with asyncio.timeout(5):
                    assert (await envoy.http.post(CHAT, content=bytes(100_000))).status_code >= 500
            async with picker_process(tmp_path, port):
                await eventually(is_served)


async def test_picker_that_is_asked_to_end_serves_on_and_lets_streams_end(envoy_binary: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            await describe(request, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        begun.set()
        await go_on.wait()
        writer.write(b"4\r\nlast\r\n0\r\n\r\n")

    async with serve(answer) as pod:
        publish(tmp_path, pod.address)
        async with (
            run_envoy(envoy_binary, tmp_path, f"127.0.0.1:{port}") as envoy,
            picker_process(tmp_path, port, "--drain-timeout", "1", "--grace", "30") as process,
        ):

            async def is_served() -> bool:
                return (await envoy.http.get("/v1/things")).status_code == 200

            await eventually(is_served)
            streaming = asyncio.create_task(envoy.http.post(CHAT, content=b"{}"))
            await asyncio.wait_for(begun.wait(), 30)
            process.send_signal(signal.SIGTERM)
            assert await is_served()

            async def is_closed() -> bool:
                return (await envoy.http.get("/v1/things")).status_code >= 500

            await eventually(is_closed)
            go_on.set()
            assert (await streaming).text == "firstlast"
            assert await asyncio.wait_for(process.wait(), 30) == 0
