"""The running picker over its real sockets."""

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from controller.headers import ENDPOINT_HEADER, STREAMS_HEADER
from controller.picker.config import PickerSettings
from controller.picker.server import serve
from controller.pools import Pool, PoolEndpoint, encode_pools, pools_of

TIMEOUT = 10.0
LOOK_EVERY = 0.01
LOOKS = int(TIMEOUT / LOOK_EVERY)


@dataclass
class Running:
    """A picker that serves, and NGINX's view of it."""

    directory: Path
    client: httpx.AsyncClient

    def publish(self, *addresses: str) -> None:
        """Replace the pools file."""
        endpoints = tuple(PoolEndpoint(address=address, name=f"llm/{n}") for n, address in enumerate(addresses))
        fresh = self.directory / "pools.new"
        fresh.write_bytes(encode_pools(pools_of((Pool(name="llm/gpu", endpoints=endpoints),))))
        fresh.rename(self.directory / "pools.json")

    async def pick(
        self,
        request: str,
        *,
        path: str = "/v1/completions",
        method: str = "POST",
        tried: str = "",
        body: bytes = b"{}",
        pool: str = "llm/gpu",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> httpx.Response:
        """Ask as NGINX does."""
        steering = {
            "x-infergate-pool": pool,
            "x-infergate-then": "@r3_serve",
            "x-infergate-tried": tried,
            "x-infergate-request": request,
        }
        return await self.client.request(method, f"http://picker{path}", headers=steering | dict(headers), content=body)

    async def begin(self, *lines: bytes) -> None:
        """Tell first bytes as NGINX does."""
        answer = await self.client.post("http://picker/first-bytes", content=b"\n".join(lines))
        assert answer.status_code == 204

    async def complete(self, *lines: bytes) -> None:
        """Tell the ends of requests as NGINX does."""
        with (self.directory / "completions.log").open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    async def pools(self) -> Any:  # Any: JSON
        return (await self.client.get("http://picker/pools")).json()

    async def until(self, is_so: Callable[[Any], bool]) -> Any:  # Any: JSON
        """The pools as soon as they are so."""
        for _ in range(LOOKS):
            if is_so(view := await self.pools()):
                return view
            await asyncio.sleep(LOOK_EVERY)
        raise TimeoutError(f"still {view}")


def settings_in(directory: Path, **settings: Any) -> PickerSettings:  # Any: fields of the settings
    paths = {
        "completions": directory / "completions.log",
        "socket": directory / "p.sock",
        "pools": directory / "pools.json",
    }
    return PickerSettings(**(paths | {"scrape_interval": 0.05} | settings))


@contextlib.asynccontextmanager
async def running_picker(directory: Path, **settings: Any) -> AsyncIterator[Running]:  # Any: fields of the settings
    stopping = asyncio.Event()
    configured = settings_in(directory, **settings)
    serving = asyncio.create_task(serve(configured, rng=random.Random(1), stopping=stopping))
    transport = httpx.AsyncHTTPTransport(uds=str(directory / "p.sock"))
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
        running = Running(directory, client)
        try:
            await asyncio.to_thread(wait_for_socket, directory / "p.sock")
            yield running
        finally:
            stopping.set()
            await asyncio.wait_for(serving, TIMEOUT)


def wait_for_socket(path: Path) -> None:
    """Block until a server listens there."""
    for _ in range(LOOKS):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as tried:
            tried.connect(str(path))
            return
        time.sleep(LOOK_EVERY)
    raise TimeoutError(f"nobody listens on {path}")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_picker(tmp_path) as running:
        yield running


@pytest.fixture
async def pod() -> AsyncIterator[str]:
    """The address of a model server that answers its metrics."""
    page = b"vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_pick_sends_nginx_on(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    answer = await running.pick("1")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-accel-redirect"] == "@r3_serve"
    assert answer.headers[ENDPOINT_HEADER] == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/pools", b"{}"),
        ("GET", "/v1/models", b""),
        ("GET", "/metrics?x=%00", b""),
        ("POST", "/v1/chat/completions", b"x" * 1_200_000),
        ("OPTIONS", "//a/../b", b""),
        ("HEAD", "/", b""),
    ],
)
async def test_request_with_the_pool_header_is_a_pick(running: Running, method: str, path: str, body: bytes) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    answer = await running.pick("1", method=method, path=path, body=body)
    assert answer.headers[ENDPOINT_HEADER] == "127.0.0.1:1"


async def test_chunked_body_is_read_to_its_end(running: Running) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    answers = [await running.pick(str(n), body=pieces()) for n in range(2)]  # type: ignore[arg-type]  # httpx takes both
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_headers_up_to_nginx_limits_pass(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    many = {f"x-filler-{n}": "y" * 8000 for n in range(8)}
    assert (await running.pick("1", headers=many)).status_code == 200
    assert (await running.pick("2", path="/" + "p" * 30_000)).status_code == 200


async def test_connection_serves_on_after_a_request_for_an_upgrade(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x", "sec-websocket-version": "13"}
    for n in range(3):
        assert (await running.pick(str(n), method="GET", body=b"", headers=upgrade)).status_code == 200


async def test_errors_reach_the_client_in_openais_shape(running: Running) -> None:
    answer = await running.pick("1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == {
        "message": "the endpoint picker has not read its pools yet",
        "type": "server_error",
        "param": None,
        "code": "picker_not_ready",
    }


async def test_statuses_of_refusals(running: Running) -> None:
    running.publish()
    await running.until(lambda view: view["pools"])
    assert (await running.pick("1")).status_code == 503
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"][0]["endpoints"])
    assert (await running.pick("2", pool="llm/none")).status_code == 500
    assert (await running.pick("3", tried="127.0.0.1:1=unreachable;")).status_code == 502
    assert (await running.pick("4", tried="127.0.0.1:1=timeout;")).status_code == 504


async def test_ready_once_pools_were_read(running: Running) -> None:
    assert (await running.client.get("http://picker/readyz")).status_code == 503
    running.publish()
    await running.until(lambda view: view["etag"])
    assert (await running.client.get("http://picker/readyz")).status_code == 200


async def test_completion_ends_a_request(running: Running, encode: Callable[..., bytes]) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    await running.pick("1")
    assert (await running.pools())["inFlight"] == 1
    await running.complete(encode("1", endpoint="127.0.0.1:1"))
    await running.until(lambda view: view["inFlight"] == 0)


async def test_first_bytes_are_posted(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    await running.pick("1", body=b'{"prompt": "Tell me", "stream": true}')
    await running.begin(b'{"id":"1","waited":0.2}', b"no JSON")
    metrics = (await running.client.get("http://picker/metrics")).text
    assert "infergate_first_bytes_total 1.0" in metrics
    assert "infergate_unreadable_completions_total 1.0" in metrics


@pytest.mark.parametrize(("body", "told"), [(b'{"stream": true}', "1"), (b'{"stream": false}', None), (b"{}", None)])
async def test_answer_says_whether_tokens_are_streamed(running: Running, body: bytes, told: str | None) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    assert (await running.pick("1", body=body)).headers.get(STREAMS_HEADER) == told


async def test_client_that_hangs_up_in_its_body_leaves_nothing(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    _, writer = await asyncio.open_unix_connection(str(running.directory / "p.sock"))
    writer.write(
        b"POST / HTTP/1.1\r\nhost: x\r\nx-infergate-pool: llm/gpu\r\nx-infergate-then: @a\r\n"
        b"x-infergate-request: 1\r\ncontent-length: 100\r\n\r\nhalf"
    )
    await writer.drain()
    await running.pools()
    writer.close()
    for _ in range(LOOKS):
        metrics = (await running.client.get("http://picker/metrics")).text
        if 'outcome="client_hung_up"' in metrics:
            break
        await asyncio.sleep(LOOK_EVERY)
    assert 'infergate_picks_total{outcome="client_hung_up",pool=""} 1.0' in metrics
    assert (await running.pools())["inFlight"] == 0


async def test_pools_show_what_is_known(running: Running, pod: str) -> None:
    running.publish(pod, "127.0.0.9:1")
    view = await running.until(
        lambda view: view["pools"] and [e["metrics"] for e in view["pools"][0]["endpoints"]] == ["read", "unreachable"]
    )
    alive, dead = view["pools"][0]["endpoints"]
    assert (alive["engine"], alive["isPreferred"], alive["fromOthers"]) == ("vllm", True, 3)
    assert (alive["reading"]["running"], alive["reading"]["waiting"]) == (2, 1)
    assert alive["readingAge"] < TIMEOUT
    assert (dead["reason"], dead["readingAge"]) == ("not read yet", None)


async def test_removed_endpoint_gets_nothing_more(running: Running) -> None:
    running.publish("127.0.0.1:1", "127.0.0.2:1")
    await running.until(lambda view: view["pools"])
    running.publish("127.0.0.2:1")
    await running.until(lambda view: len(view["pools"][0]["endpoints"]) == 1)
    answers = [await running.pick(str(n)) for n in range(5)]
    assert {answer.headers[ENDPOINT_HEADER] for answer in answers} == {"127.0.0.2:1"}


async def test_pools_show_what_was_learned(running: Running, encode: Callable[..., bytes]) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    body = b'{"model":"m","stream":true,"prompt":"%b"}' % (b"x" * 4000)
    await running.pick("1", body=body)
    endpoint = (await running.pools())["pools"][0]["endpoints"][0]
    assert (endpoint["backlogTokens"], endpoint["prefixChunks"], endpoint["slowness"]) == (1000, 15, 1.0)
    await running.begin(b'{"id":"1","waited":0.1}')
    endpoint = (await running.pools())["pools"][0]["endpoints"][0]
    assert (endpoint["backlogTokens"], endpoint["inFlight"]) == (0, 1)
    text = (await running.client.get("http://picker/metrics")).text
    labels = 'endpoint_name="llm/0",model_server_endpoint="127.0.0.1:1",pool="llm/gpu"'
    for line in (
        'infergate_learned_seconds_per_token{pool="llm/gpu"} 0.0002',
        'infergate_prompt_tokens_total{pool="llm/gpu"} 1000.0',
        f"infergate_prefix_indexer_size{{{labels}}} 15.0",
        "infergate_first_bytes_total 1.0",
    ):
        assert line in text.splitlines()


async def test_picks_and_admin_requests_share_a_connection(running: Running) -> None:
    running.publish("127.0.0.1:1")
    await running.until(lambda view: view["pools"])
    for n in range(5):
        assert (await running.pick(str(n))).status_code == 200
        assert (await running.client.get("http://picker/healthz")).status_code == 200


async def test_refusal_to_head_has_no_body(running: Running) -> None:
    answer = await running.pick("1", method="HEAD", body=b"")
    assert (answer.status_code, answer.content) == (503, b"")
    assert (await running.pick("2")).status_code == 503


async def test_metrics(running: Running, pod: str) -> None:
    running.publish(pod)
    await running.until(lambda view: view["pools"] and view["pools"][0]["endpoints"][0]["metrics"] == "read")
    await running.pick("1")
    await running.pick("2", pool="invented")
    await running.complete(b"nonsense")
    text = (await running.client.get("http://picker/metrics")).text
    labels = f'endpoint_name="llm/0",model_server_endpoint="{pod}",pool="llm/gpu"'
    for line in (
        'infergate_picks_total{outcome="picked",pool="llm/gpu"} 1.0',
        'infergate_picks_total{outcome="pool_unknown",pool=""} 1.0',
        f"infergate_inflight_requests{{{labels}}} 1.0",
        f"infergate_endpoint_without_metrics{{{labels}}} 0.0",
        'infergate_ready_endpoints{pool="llm/gpu"} 1.0',
        'infergate_average_queue_size{pool="llm/gpu"} 1.0',
        'infergate_std_dev_queue_size{pool="llm/gpu"} 0.0',
        f"infergate_per_endpoint_queue_size{{{labels}}} 1.0",
        'llm_d_epp_ready_endpoints{name="gpu",namespace="llm"} 1.0',
        "llm_d_epp_scheduler_e2e_duration_seconds_count 2.0",
        "infergate_scheduler_e2e_duration_seconds_count 2.0",
    ):
        assert line in text.splitlines()
    assert "invented" not in text


async def test_over_tcp_only_the_admin_routes_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with running_picker(tmp_path, metrics_address=address) as running:
        running.publish("127.0.0.1:1")
        await running.until(lambda view: view["pools"])
        async with httpx.AsyncClient() as client:
            pick = {"x-infergate-pool": "llm/gpu", "x-infergate-then": "@a", "x-infergate-request": "1"}
            assert (await client.get(f"http://{address}/v1/models", headers=pick)).status_code == 404
            assert "infergate_picks" in (await client.get(f"http://{address}/metrics", headers=pick)).text


async def test_restarted_picker_binds_again_and_serves(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    for _ in range(2):
        async with running_picker(tmp_path) as running:
            running.publish("127.0.0.1:1")
            await running.until(lambda view: view["pools"])
            assert (await running.pick("1")).status_code == 200
            assert (tmp_path / "p.sock").stat().st_mode & 0o777 == 0o666
            await running.complete(encode("of the one before", endpoint="127.0.0.1:1"))


async def test_restarted_picker_is_ready_once_it_knows_all_its_endpoints(tmp_path: Path) -> None:
    pools = tuple(
        Pool(name=f"llm/{pool}", endpoints=(PoolEndpoint(f"127.0.0.1:{port}", f"llm/{port}"),))
        for port, pool in enumerate(("one", "two", "three"), start=1)
    )
    (tmp_path / "pools.json").write_bytes(encode_pools(pools_of(pools)))
    for _ in range(2):
        async with running_picker(tmp_path) as running:
            while (await running.client.get("http://picker/readyz")).status_code != 200:
                # Not ready, and says so to whoever asks all the same.
                assert (await running.pick("early", pool="llm/three")).status_code in (200, 503)
            answers = [await running.pick(pool.name, pool=pool.name) for pool in pools]
            assert [answer.headers["x-gateway-destination-endpoint"] for answer in answers] == [
                pool.endpoints[0].address for pool in pools
            ]


async def test_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "p.sock").write_text("precious")
    with pytest.raises(FileExistsError, match="is not a socket"):
        await serve(settings_in(tmp_path), rng=random.Random(1), stopping=asyncio.Event())


async def test_address_in_use_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_in(tmp_path, metrics_address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OSError, match="in use"):
            await serve(settings, rng=random.Random(1), stopping=asyncio.Event())


async def test_large_burst_is_not_refused(running: Running) -> None:
    async def pick(request: int) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(running.directory / "p.sock"))
        steering = b"x-infergate-pool: llm/gpu\r\nx-infergate-then: @a\r\nx-infergate-request: %d\r\n" % request
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\n%bcontent-length: 2\r\n\r\n{}" % steering)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return answer

    running.publish(*(f"127.0.0.{n}:1" for n in range(1, 6)))
    await running.until(lambda view: view["pools"])
    answers = await asyncio.wait_for(asyncio.gather(*(pick(n) for n in range(500))), TIMEOUT)
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert [e["inFlight"] for e in (await running.pools())["pools"][0]["endpoints"]] == [100] * 5


def test_command_ends_cleanly_on_a_signal_and_loads_little(tmp_path: Path) -> None:
    program = (
        "import argparse, sys\n"
        "from controller.picker.command import add_arguments, run\n"
        "parser = argparse.ArgumentParser()\n"
        "add_arguments(parser)\n"
        "code = run(parser.parse_args())\n"
        "print(sorted({'kubernetes', 'jinja2', 'cryptography', 'httpx', 'yaml'} & sys.modules.keys()))\n"
        "sys.exit(code)\n"
    )
    paths = [f"--{name}={tmp_path / name}" for name in ("socket", "pools", "completions")]
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE, text=True)
        with process:
            wait_for_socket(tmp_path / "socket")
            process.send_signal(number)
            output, _ = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, output) == (0, "[]\n")
