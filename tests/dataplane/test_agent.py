"""`infergate agent` as a process, a control plane in this one, and a real nginx."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import Nginx
from controller.bundle import Bundle, BundleFile
from controller.dataplane.pki import make_ca
from controller.dataplane.server import BundleServer
from controller.errors import NginxRefused
from controller.ir.types import GatewayConfig
from controller.pools import ExternalPicker, Pool, pools_of
from controller.render.files import RenderSettings, render

from .control_plane import ControlPlane
from .pods import Pod, answers

pytestmark = pytest.mark.nginx

_CONF = """\
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
    server {{
        listen unix:run/control.sock;
        location = /infergate/version {{ return 200 "{version}"; }}
    }}
    include routes.conf;
}}
"""

Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path)


@pytest.fixture
async def server(plane: ControlPlane) -> AsyncIterator[BundleServer]:
    async with plane.serving() as server:
        yield server


@pytest.fixture
async def pod(plane: ControlPlane, server: BundleServer, tmp_path: Path, nginx: Nginx) -> AsyncIterator[Pod]:
    """One whose picker runs; its agent is started by the test."""
    pod = Pod(plane, tmp_path)
    async with pod.picker():
        yield pod


def _bundle(version: str, routes: str, *pools: str) -> Bundle:
    files = (
        BundleFile("nginx.conf", _CONF.format(version=version).encode()),
        BundleFile("routes.conf", routes.encode()),
        BundleFile("tls/0.key", b"secret", secret=True),
    )
    return Bundle("shop/edge", version, files, pools_of(tuple(map(Pool, pools))))


def _answering(port: int, version: str, *pools: str) -> Bundle:
    return _bundle(version, f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{version}"; }} }}', *pools)


async def test_first_bundle_is_served_within_two_seconds(pod: Pod, server: BundleServer, port: int) -> None:
    async with pod.agent():
        await pod.says("agent begins")
        begun = asyncio.get_running_loop().time()
        server.publish("shop/edge", _answering(port, "a"))
        await answers(port, "a", within=2)
        assert asyncio.get_running_loop().time() - begun < 2
        ready = await pod.probe("/readyz")
        assert ready is not None
        assert ready.status_code == 200


async def test_new_version_goes_live_and_is_reported(pod: Pod, server: BundleServer, port: int, until: Until) -> None:
    async with pod.agent():
        for version in ("a", "b"):
            server.publish("shop/edge", _answering(port, version))
            await answers(port, version)
            await until(lambda: [each.live for each in server.reports("shop/edge")] == [version])  # noqa: B023
    assert (pod.state / "current/tls/0.key").stat().st_mode & 0o777 == 0o600
    # It says so when it leaves.
    await until(lambda: server.reports("shop/edge") == ())


async def test_pools_change_without_a_reload(pod: Pod, server: BundleServer, port: int, until: Until) -> None:
    proxy = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://unix:run/picker.sock:/pools; }} }}"
    async with pod.agent():
        server.publish("shop/edge", _bundle("a", proxy, "llm/gpu"))
        await answers(port, "llm/gpu")
        other = pools_of((Pool("llm/cpu"),))
        server.publish_pools("shop/edge", other)
        await answers(port, "llm/cpu")
        await until(lambda: [each.etag for each in server.reports("shop/edge")] == [other.etag])
        assert [path.name for path in (pod.state / "releases").iterdir()] == ["000001"]


async def test_metrics_of_the_relay_are_the_agents_too(pod: Pod, server: BundleServer, port: int) -> None:
    external = Pool("llm/gpu", external=ExternalPicker("epp.llm.svc:9002"))
    async with pod.agent():
        server.publish("shop/edge", _answering(port, "a"))
        await answers(port, "a")
        alone = await pod.probe("/metrics")
        server.publish("shop/edge", replace(_answering(port, "b"), pools=pools_of((external,))))
        await answers(port, "b", within=30)
        both = await pod.probe("/metrics")
    assert alone is not None
    assert both is not None
    assert "infergate_relay_" not in alone.text
    assert "\ninfergate_relay_body_bytes 0.0\n" in both.text
    assert "infergate_agent_serving" in both.text


async def test_refused_bundle_is_reported_and_the_old_one_stays(
    pod: Pod, server: BundleServer, port: int, until: Until
) -> None:
    async with pod.agent():
        server.publish("shop/edge", _answering(port, "a"))
        await answers(port, "a")
        server.publish("shop/edge", _bundle("b", "server {\n  nonsense on;\n}"))
        await until(lambda: any(each.report.refusal for each in server.reports("shop/edge")))
        (said,) = server.reports("shop/edge")
        assert (said.report.version, said.report.serving, said.live) == ("b", False, "a")
        assert said.report.refusal == NginxRefused("routes.conf", 2, 'unknown directive "nonsense"')
        await answers(port, "a")
        ready = await pod.probe("/readyz")
        assert ready is not None
        assert ready.status_code == 200
        server.publish("shop/edge", _answering(port, "c"))
        await answers(port, "c")


async def test_control_plane_that_goes_and_comes_back(
    plane: ControlPlane, tmp_path: Path, nginx: Nginx, port: int
) -> None:
    pod = Pod(plane, tmp_path)
    async with AsyncExitStack() as stack:
        async with plane.serving() as server:
            await stack.enter_async_context(pod.picker())
            await stack.enter_async_context(pod.agent())
            server.publish("shop/edge", _answering(port, "a"))
            await answers(port, "a")
        await pod.says("control plane cannot be asked")
        await answers(port, "a")
        async with plane.serving() as server:
            server.publish("shop/edge", _answering(port, "b"))
            await answers(port, "b")
            assert pod.log.count("control plane cannot be asked") == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_restart_without_a_control_plane_serves_the_last_release(
    end: signal.Signals, plane: ControlPlane, tmp_path: Path, nginx: Nginx, port: int
) -> None:
    pod = Pod(plane, tmp_path)
    async with pod.picker():
        async with plane.serving() as server, pod.agent() as agent:
            server.publish("shop/edge", _answering(port, "a", "llm/gpu"))
            await answers(port, "a")
            agent.send_signal(end)
            await agent.wait()
        async with pod.agent():
            await answers(port, "a")
            await pod.says("last release live")
            ready = await pod.probe("/readyz")
            assert ready is not None
            assert ready.status_code == 200
            async with plane.serving() as server:
                server.publish("shop/edge", _answering(port, "b"))
                await answers(port, "b")


@pytest.mark.parametrize(
    ("token", "gateway", "said"),
    [("stolen", "shop/edge", "answers 401"), ("good", "bank/edge", "answers 403")],
)
async def test_instance_that_may_not_ask_gets_nothing(
    token: str, gateway: str, said: str, plane: ControlPlane, server: BundleServer, tmp_path: Path, nginx: Nginx
) -> None:
    pod = Pod(plane, tmp_path, token=token, gateway=gateway)
    server.publish(gateway, _bundle("a", ""))
    async with pod.agent():
        await pod.says(said)
        ready = await pod.probe("/readyz")
        assert ready is not None
        assert ready.status_code == 503
        assert not list((pod.state / "releases").iterdir())
        assert server.reports(gateway) == ()


async def test_rotated_token_and_authority_are_taken_up(
    pod: Pod, plane: ControlPlane, server: BundleServer, port: int
) -> None:
    plane.tokens.clear()
    plane.ca_file.write_bytes(make_ca(now=datetime.now(UTC)).certificate)
    server.publish("shop/edge", _answering(port, "a"))
    async with pod.agent():
        await pod.says("CERTIFICATE_VERIFY_FAILED")
        plane.ca_file.write_bytes(plane.ca.certificate)
        plane.admit("rotated", "shop/edge")
        pod.token_file.write_text("rotated\n")
        await answers(port, "a")


async def test_two_instances_do_not_wait_for_each_other(
    pod: Pod, plane: ControlPlane, server: BundleServer, port: int, tmp_path: Path, until: Until
) -> None:
    plane.admit("second", "shop/edge", pod="edge-1")
    second = Pod(plane, tmp_path / "second", token="second")
    async with pod.agent() as hanging, second.picker(), second.agent():
        server.publish("shop/edge", _bundle("a", ""))
        await until(lambda: [each.live for each in server.reports("shop/edge")] == ["a", "a"])
        hanging.send_signal(signal.SIGSTOP)
        server.publish("shop/edge", _answering(port, "b"))
        await answers(port, "b", within=2)
        await until(lambda: [each.live for each in server.reports("shop/edge")] == ["a", "b"])
        hanging.send_signal(signal.SIGKILL)


async def test_dead_nginx_that_cannot_come_back_fails_liveness(
    pod: Pod, server: BundleServer, port: int, until: Until
) -> None:
    async with pod.agent():
        server.publish("shop/edge", _answering(port, "a"))
        await answers(port, "a")
        await _is_answered(pod, "/healthz", 200)
        shutil.rmtree((pod.state / "current").resolve())
        os.kill(int((pod.state / "run/nginx.pid").read_text()), signal.SIGKILL)
        await _is_answered(pod, "/healthz", 503)
        await _is_answered(pod, "/readyz", 503)


async def test_metrics_are_answered(pod: Pod, server: BundleServer, port: int) -> None:
    async with pod.agent():
        server.publish("shop/edge", _answering(port, "a"))
        await answers(port, "a")
        await pod.says("INFO live")
        metrics = await pod.probe("/metrics")
        assert metrics is not None
        assert 'infergate_agent_bundles_total{outcome="applied"} 1.0' in metrics.text
        assert "infergate_agent_serving 1.0" in metrics.text
        await _is_answered(pod, "/elsewhere", 404)


async def test_streams_end_whole_after_sigterm(
    plane: ControlPlane, server: BundleServer, tmp_path: Path, nginx: Nginx, port: int
) -> None:
    pod = Pod(plane, tmp_path, options=("--drain-delay", "1", "--grace", "30"))
    go_on = asyncio.Event()
    async with _streaming(go_on) as backend, pod.picker(), pod.agent() as agent:
        proxy = f"proxy_pass http://127.0.0.1:{backend}; proxy_buffering off;"
        server.publish("shop/edge", _bundle("a", f"server {{ listen 127.0.0.1:{port}; location / {{ {proxy} }} }}"))
        await pod.says("INFO live")
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=60) as http, asyncio.TaskGroup() as tasks:
            begun = [asyncio.Event() for _ in range(200)]
            streams = [tasks.create_task(_read(http, port, event)) for event in begun]
            await asyncio.gather(*(event.wait() for event in begun))
            agent.send_signal(signal.SIGTERM)
            await _is_answered(pod, "/readyz", 503)
            await _is_answered(pod, "/healthz", 200)
            late = asyncio.Event()
            streams.append(tasks.create_task(_read(http, port, late)))  # within the delay
            await late.wait()
            await _refuses(port)
            assert agent.returncode is None
            go_on.set()
        assert {stream.result() for stream in streams} == {"begin end"}
        async with asyncio.timeout(5):
            assert await agent.wait() == 0
    assert not (pod.state / "run/nginx.pid").exists()


async def test_agent_ends_at_its_grace(
    plane: ControlPlane, server: BundleServer, tmp_path: Path, nginx: Nginx, port: int
) -> None:
    pod = Pod(plane, tmp_path, options=("--drain-delay", "0", "--grace", "0.5"))
    async with _streaming(asyncio.Event()) as backend, pod.picker(), pod.agent() as agent:
        proxy = f"proxy_pass http://127.0.0.1:{backend}; proxy_buffering off;"
        server.publish("shop/edge", _bundle("a", f"server {{ listen 127.0.0.1:{port}; location / {{ {proxy} }} }}"))
        await pod.says("INFO live")
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            begun = asyncio.Event()
            stream = asyncio.create_task(_read(http, port, begun))
            await begun.wait()
            agent.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                assert await agent.wait() == 0
            with pytest.raises(httpx.RemoteProtocolError):
                await stream


@pytest.fixture
def read_only(tmp_path: Path) -> tuple[str, ...]:
    """Runs a command that can write to the state directory only."""
    state = tmp_path / "state"
    state.mkdir()
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    enter = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(state))
    tried = f"! touch {tmp_path}/x && touch {state}/x"
    try:
        subprocess.run([*enter, "sh", "-c", tried], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"needs mount namespaces, and the temporary directory on the root file system: {problem}")
    return enter


async def test_only_the_state_directory_is_written(
    plane: ControlPlane, server: BundleServer, tmp_path: Path, nginx: Nginx, read_only: tuple[str, ...], until: Until
) -> None:
    """What is rendered, with a root file system that is read-only, as in a pod."""
    pod = Pod(plane, tmp_path, before=read_only)
    bundle = render(GatewayConfig(name="shop/edge", servers=(), upstreams=(), pools=()), RenderSettings())
    async with pod.picker(), pod.agent():
        server.publish("shop/edge", bundle)
        await until(lambda: [each.live for each in server.reports("shop/edge")] == [bundle.version])
    assert "Read-only" not in pod.log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--server", "http://localhost:1"), "--server http://localhost:1: string should match"),
        (("--gateway", "edge"), "--gateway edge: string should match"),
        (("--grace", "-1"), "--grace -1: input should be greater"),
    ],
)
async def test_option_that_cannot_be_used_is_named(
    options: tuple[str, ...], said: str, plane: ControlPlane, tmp_path: Path
) -> None:
    pod = Pod(plane, tmp_path, options=options)
    plane.port = 1
    async with pod.agent() as agent:
        assert await agent.wait() == 2
    assert said in pod.log


@asynccontextmanager
async def _streaming(go_on: asyncio.Event) -> AsyncIterator[int]:
    """A backend whose answers begin at once and end when told."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin")
        await go_on.wait()
        writer.write(b" end")
        writer.close()

    async with await asyncio.start_server(stream, "127.0.0.1", 0, backlog=512) as server:
        yield server.sockets[0].getsockname()[1]
        go_on.set()


async def _read(http: httpx.AsyncClient, port: int, begun: asyncio.Event) -> str:
    text = ""
    async with http.stream("GET", f"http://127.0.0.1:{port}/") as answer:
        async for piece in answer.aiter_text():
            text += piece
            begun.set()
    return text


async def _refuses(port: int) -> None:
    """Wait until nobody listens any more."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def _is_answered(pod: Pod, path: str, status: int) -> None:
    async with asyncio.timeout(10):
        while (answer := await pod.probe(path)) is None or answer.status_code != status:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
