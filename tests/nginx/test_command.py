"""`infergate run`, as a user starts it."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from controller.agent.nginx import Nginx
from tests.nginx.gateway import SECONDS, eventually
from tests.nginx.resources import as_yaml, gateway, listener, pool, route, rule, to_pool
from tests.nginx.servers import Backend, serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.usefixtures("nginx")]


@asynccontextmanager
async def _run(root: Path, pod: Backend, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command on a directory with one route, /v1."""
    resources = root / "resources"
    resources.mkdir()
    routes = (pool("gpu", pod.address), route("all", rule(to_pool("gpu"), path="/v1")))
    (resources / "all.yaml").write_text(as_yaml(gateway(listener(port)), *routes))
    options = ("--state", str(root / "state"), "--write-status", str(root / "status.yaml"))
    with (root / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controller", "run", str(resources), *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "INFERGATE_WORKERS": "1"},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), SECONDS)


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)


async def _answers(http: httpx.AsyncClient, path: str, status: int) -> bool:
    try:
        return (await http.post(path, content=b"x")).status_code == status
    except httpx.TransportError:
        return False


async def test_directory_is_served_followed_and_left(tmp_path: Path) -> None:
    (port,) = free_ports(1)

    async with serve() as pod, _client(port) as http, _run(tmp_path, pod, port) as process:
        await eventually(lambda: _answers(http, "/v1/x", 200))
        await eventually(lambda: _answers(http, "/v2/x", 404))
        more = route("more", rule(to_pool("gpu"), path="/v2"))
        (tmp_path / "resources/more.yaml").write_text(as_yaml(more))
        await eventually(lambda: _answers(http, "/v2/x", 200))
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), SECONDS)
        assert b'"path":"/v1/x"' in line
        statuses = yaml.safe_load((tmp_path / "status.yaml").read_text())["items"]
        assert {"Gateway", "HTTPRoute", "InferencePool"} <= {item["kind"] for item in statuses}
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        assert not await _answers(http, "/v1/x", 200)


async def test_log_names_the_state_directory(tmp_path: Path) -> None:
    (port,) = free_ports(1)

    async with serve() as pod, _client(port) as http, _run(tmp_path, pod, port):
        await eventually(lambda: _answers(http, "/v1/x", 200))
        assert f"directory={tmp_path / 'state'}\n" in (tmp_path / "log").read_text()


async def test_status_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)

    async with serve() as pod, _client(port) as http, _run(tmp_path, pod, port) as process:
        await eventually(lambda: _answers(http, "/v1/x", 200))
        (tmp_path / "status.yaml").unlink(missing_ok=True)
        (tmp_path / "status.yaml").mkdir()
        (tmp_path / "resources/more.yaml").write_text(as_yaml(route("more", rule(to_pool("gpu"), path="/v2"))))
        await eventually(lambda: _answers(http, "/v2/x", 200))
        (tmp_path / "status.yaml").rmdir()
        (tmp_path / "resources/last.yaml").write_text(as_yaml(route("last", rule(to_pool("gpu"), path="/v3"))))
        await eventually(lambda: _answers(http, "/v3/x", 200))
        assert process.returncode is None
        async with asyncio.timeout(SECONDS):
            while not (tmp_path / "status.yaml").exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)


async def test_what_nginx_has_loaded_is_shown_as_the_readme_says(tmp_path: Path, nginx: Nginx) -> None:
    if nginx.njs_module is not None:
        pytest.skip("the command is for an nginx with njs in the binary")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (command,) = re.findall(r"^\| `(.*nginx.* -T .*?)` \|", readme, re.MULTILINE)
    command = command.replace("STATE", shlex.quote(str(tmp_path / "state")))
    command = re.sub(r"\S*nginx\S* -T", f"{shlex.quote(str(nginx.binary))} -T", command)
    (port,) = free_ports(1)

    async with serve() as pod, _client(port) as http, _run(tmp_path, pod, port):
        await eventually(lambda: _answers(http, "/v1/x", 200))
        shown = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said, problems = await asyncio.wait_for(shown.communicate(), SECONDS)
        assert b"# HTTPRoute default/all" in said, problems
        assert await _answers(http, "/v1/x", 200)
