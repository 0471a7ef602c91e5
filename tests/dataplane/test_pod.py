"""A whole pod: the agent with its nginx and the real picker, on what is rendered from resources."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import Nginx
from controller.agent.state import LOCK_FILE, PICKER_SOCKET
from controller.bundle import Bundle
from controller.completions import COMPLETIONS_FILE
from controller.pools import POOLS_FILE
from controller.provider.file import read
from controller.reconcile import bundle_of, topology_of
from controller.render.files import RenderSettings
from controller.topology.refusals import Refusals
from tests.nginx.resources import as_yaml, gateway, listener, pool, route, rule, to_pool

from .control_plane import ControlPlane
from .pods import Pod

pytestmark = pytest.mark.nginx

_FILES = ("--socket", PICKER_SOCKET, "--pools", POOLS_FILE, "--completions", COMPLETIONS_FILE)
_OPTIONS = (*_FILES, "--outlive", LOCK_FILE, "--grace", "30")
_PICKER = (sys.executable, "-m", "controller", "picker", *_OPTIONS)


def _bundle(directory: Path, port: int, model_server: str) -> Bundle:
    directory.mkdir(exist_ok=True)
    resources = (gateway(listener(port)), route("llm", rule(to_pool("gpu"))), pool("gpu", model_server))
    (directory / "all.yaml").write_text(as_yaml(*resources))
    settings = RenderSettings(access_log="access.log", worker_connections=1024, max_open_files=4096)
    return bundle_of(topology_of(read(directory)), Refusals({}, {}, {}), name="default/edge", settings=settings)


async def test_pod_that_ends_lets_picked_streams_end(tmp_path: Path, nginx: Nginx, port: int) -> None:
    plane = ControlPlane(tmp_path)
    plane.admit("good", "default/edge")
    pod = Pod(plane, tmp_path, gateway="default/edge", options=("--drain-delay", "0.5", "--grace", "30"))
    go_on = asyncio.Event()
    async with plane.serving() as server, _model_server(go_on) as address, _picker(pod) as picker, pod.agent() as agent:
        server.publish("default/edge", _bundle(tmp_path / "resources", port, address))
        await pod.says("INFO live")
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=60) as http, asyncio.TaskGroup() as tasks:
            begun = [asyncio.Event() for _ in range(50)]
            streams = [tasks.create_task(_complete(http, port, event)) for event in begun]
            await asyncio.gather(*(event.wait() for event in begun))
            for container in (agent, picker):
                container.send_signal(signal.SIGTERM)
            await pod.says("instance ends")
            async with asyncio.timeout(10):
                while (await _status(port)) is not None:  # noqa: ASYNC110 - nginx does not tell
                    await asyncio.sleep(0.05)
            assert (agent.returncode, picker.returncode) == (None, None)
            go_on.set()
        assert {stream.result() for stream in streams} == {(200, "begin end")}
        async with asyncio.timeout(10):
            assert (await agent.wait(), await picker.wait()) == (0, 0)


@asynccontextmanager
async def _picker(pod: Pod) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*_PICKER, cwd=pod.state)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def _model_server(go_on: asyncio.Event) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nbegin")
            await go_on.wait()
            writer.write(b" end")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        go_on.set()


async def _complete(http: httpx.AsyncClient, port: int, begun: asyncio.Event) -> tuple[int, str]:
    text = ""
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with http.stream("POST", url, json={"model": "m", "prompt": "p", "stream": True}) as answer:
        async for piece in answer.aiter_text():
            text += piece
            begun.set()
    return answer.status_code, text


async def _status(port: int) -> int | None:
    """None when nobody listens."""
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            return (await http.get(f"http://127.0.0.1:{port}/", headers={"host": "nobody"})).status_code
        except httpx.ConnectError:
            return None
        except httpx.TransportError:
            return 0
