"""Health, certificates, what is loaded, and how the server ends."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from controller.picker.ext_proc.certificates import CertificateFiles, self_signed
from tests.ports import free_port

from .conftest import TIMEOUT, Gateway, Served, eventually, gateway_of, served_picker

POD = "127.1.0.1:8000"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


async def health(address: str, service: str = "") -> bytes:
    """What gRPC health answers: the bytes of its message."""
    request = b"\x0a%c%b" % (len(service), service.encode()) if service else b""
    async with gateway_of(address) as gateway:
        answer: bytes = await gateway.channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=TIMEOUT)
        return answer


@pytest.mark.parametrize("service", ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"])
async def test_picker_is_healthy_once_it_knows_its_pool(picker: Served, service: str) -> None:
    for address in (picker.address, picker.health_address):
        assert await health(address, service) == NOT_SERVING
        assert await health(address, "liveness") == SERVING
    await picker.serving(POD)
    for address in (picker.address, picker.health_address):
        assert await health(address, service) == SERVING


async def test_health_of_something_else_is_not_found(picker: Served) -> None:
    for service in ("other", "x" * 120):
        with pytest.raises(grpc.aio.AioRpcError) as problem:
            await health(picker.address, service)
        assert problem.value.code() is grpc.StatusCode.NOT_FOUND


def watch(gateway: Gateway, service: str = "") -> Any:  # Any: grpc's call
    """What gRPC health tells, message by message."""
    request = b"\x0a%c%b" % (len(service), service.encode()) if service else b""
    return gateway.channel.unary_stream("/grpc.health.v1.Health/Watch")(request, timeout=TIMEOUT)


@pytest.mark.parametrize("place", ["address", "health_address"])
async def test_who_watches_health_is_told_of_changes(picker: Served, place: str) -> None:
    async with gateway_of(getattr(picker, place)) as gateway:
        told, alive = watch(gateway, "readiness"), watch(gateway, "liveness")
        assert (await told.read(), await alive.read()) == (NOT_SERVING, SERVING)
        await picker.serving(POD)
        assert await told.read() == SERVING


async def test_who_watches_something_else_is_told_that_it_is_not_known(picker: Served) -> None:
    async with gateway_of(picker.address) as gateway:
        assert await watch(gateway, "other").read() == SERVICE_UNKNOWN


async def trusted(address: str, certificate: bytes | None = None, **options: Any) -> str:  # Any: grpc's
    """Where a request goes that is sent over TLS to a server with this certificate, or with the one that it shows."""
    host, _, port = address.rpartition(":")
    shown = certificate or (await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))).encode()
    credentials = grpc.ssl_channel_credentials(root_certificates=shown)
    options = {"ssl_target_name_override": "localhost", **options}
    async with gateway_of(address, credentials, **options) as gateway:
        talk = gateway.talk()
        await talk.ask(method="GET", path="/v1/things")
        return await talk.picked()


async def test_certificate_is_made_where_none_is_given(tmp_path: Path) -> None:
    async with served_picker(tmp_path, ext_proc={"tls": True}) as picker:
        await picker.serving(POD)
        assert await trusted(picker.address) == POD


def write(directory: Path, identity: tuple[bytes, bytes]) -> None:
    """A key and its certificate, replaced as a Secret's are."""
    for name, text in zip(("tls.key", "tls.crt"), identity, strict=True):
        (directory / "new").write_bytes(text)
        (directory / "new").rename(directory / name)


async def test_certificate_is_read_again_when_it_changes(tmp_path: Path) -> None:
    first, second = self_signed(), self_signed()
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    write(certificates, first)
    async with served_picker(tmp_path, ext_proc={"tls": True, "certificates": certificates}) as picker:
        await picker.serving(POD)
        assert await trusted(picker.address, first[1]) == POD
        write(certificates, second)

        async def is_shown() -> bool:
            host, _, port = picker.address.rpartition(":")
            shown = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
            return shown.encode().strip() == second[1].strip()

        await eventually(is_shown)
        # A connection of its own: grpc shares those that are alike.
        assert await trusted(picker.address, second[1], use_local_subchannel_pool=1) == POD


def test_unusable_certificate_leaves_the_last_in_use(tmp_path: Path) -> None:
    write(tmp_path, self_signed())
    files = CertificateFiles(tmp_path)
    assert files.newer() is None
    (tmp_path / "tls.key").write_bytes(self_signed()[0])
    assert files.newer() is None
    repaired = self_signed()
    write(tmp_path, repaired)
    assert files.newer() == repaired


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "controller", "picker", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


REFUSED = [
    ((), "--socket, --pools and --completions are required"),
    (("--ext-proc", ":1"), "needs either --pools, or --pool-name, or --endpoint-selector"),
    (("--ext-proc", "nowhere", "--pools", "p"), "pattern"),
    (("--ext-proc", ":1", "--endpoint-selector", "a=b"), "--endpoint-target-ports go together"),
    (("--ext-proc", ":1", "--endpoint-selector", "a=b", "--endpoint-target-ports", "1,1"), "named twice"),
    (("--ext-proc", ":1", "--endpoint-selector", "a=b", "--endpoint-target-ports", "x"), "accepted is PORT"),
    (("--ext-proc", ":1", "--endpoint-selector", "a", "--endpoint-target-ports", "1"), "accepted is LABEL=VALUE"),
    (("--ext-proc", ":1", "--endpoint-selector", "a=b c", "--endpoint-target-ports", "1"), "--endpoint-selector: "),
    (("--ext-proc", ":1", "--pool-name", "p", "--pool-group", "other"), "accepted is inference.networking.k8s.io"),
    (("--ext-proc", ":1", "--pools", "p", "--cert-path", "/nowhere"), "--cert-path /nowhere"),
    (("--ext-proc", ":1", "--pools", "p", "--cert-path", "c", "--secure-serving=false"), "does not go with"),
    (("--ext-proc", ":1", "--pools", "p", "--secure-serving=maybe"), "accepted is true or false"),
    (("--ext-proc", ":1", "--pools", "p", "--policy", "f"), "--policy does not go with --pools"),
    (("--pool-name", "p"), "--pool-name goes with --ext-proc"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_arguments_that_do_not_fit_are_told(arguments: tuple[str, ...], message: str) -> None:
    found = run(*arguments)
    assert found.returncode == 2
    assert message in found.stderr


def test_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = run("--ext-proc", address, "--pools", str(tmp_path / "p"), "--drain-timeout", "0")
    assert (found.returncode, address in found.stderr) == (1, True)


LOADED = """
import os, signal, sys, threading, time
from controller.__main__ import main
directory, *more = sys.argv[1:]
def end():
    while not os.path.exists(directory + "/s"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
files = [part for name in ("socket", "completions", "pools") for part in ("--" + name, directory + "/" + name[0])]
status = main(["picker", *files, *more])
loaded = {name.split(".")[0] for name in sys.modules}
print(status, sorted(loaded & {"grpc", "hpack", "envoy", "google", "kubernetes", "aiohttp"}))
"""


def test_nothing_of_it_is_loaded_beside_nginx(tmp_path: Path) -> None:
    def loaded(*more: str) -> str:
        (tmp_path / "s").unlink(missing_ok=True)
        command = (sys.executable, "-c", LOADED, str(tmp_path), *more)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    assert loaded() == "0 []"
    address = f"127.0.0.1:{free_port()}"
    # And of an API server nothing where the pools come from a file.
    assert loaded("--ext-proc", address, "--drain-timeout", "0") == "0 ['envoy', 'google', 'hpack']"


@asynccontextmanager
async def picker_process(directory: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A picker that serves, and its address."""
    address, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controller", "picker", "--ext-proc", address, "--secure-serving=false",
        "--pools", directory / "pools.json", "--metrics-address", admin, *options,
        stderr=asyncio.subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    try:
        Served(directory, address, None).publish(POD)  # type: ignore[arg-type]  # nobody asks it here

        async def is_served() -> bool:
            try:
                return await health(address) == SERVING
            except grpc.aio.AioRpcError:
                return False

        await eventually(is_served)
        yield process, address
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_draining_picker_says_so_and_serves(tmp_path: Path) -> None:
    async with picker_process(tmp_path, "--drain-timeout", "60", "--grace", "0") as (process, address):
        process.send_signal(signal.SIGTERM)

        async def is_draining() -> bool:
            return await health(address) == NOT_SERVING

        await eventually(is_draining)
        assert await health(address, "liveness") == SERVING
        async with gateway_of(address) as gateway:
            talk = gateway.talk()
            await talk.ask(method="GET", path="/v1/things")
            assert await talk.picked() == POD


async def test_who_watches_health_is_told_of_the_end_and_does_not_hold_it_up(tmp_path: Path) -> None:
    async with (
        picker_process(tmp_path, "--drain-timeout", "0.1", "--grace", "600") as (process, address),
        gateway_of(address) as gateway,
    ):
        told = watch(gateway)
        assert await told.read() == SERVING
        process.send_signal(signal.SIGTERM)
        assert await told.read() == NOT_SERVING
        assert await told.code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(TIMEOUT):
            assert await process.wait() == 0
