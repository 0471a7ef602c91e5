import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from controller.bundle import Bundle, BundleFile
from controller.dataplane import listening
from controller.dataplane.instances import FORGOTTEN_AFTER, Instances
from controller.dataplane.server import BundleServer
from controller.dataplane.tokens import Denied, Identity
from controller.errors import InfergateError, NginxRefused
from controller.pools import Pool, Pools, pools_of
from controller.wire import Refusal, Statement, decode_delivery, encode_statement

from .control_plane import ControlPlane

_NO_POOLS = pools_of(())
_EDGE = "/bundles/shop/edge"


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path)


@pytest.fixture
async def server(plane: ControlPlane) -> AsyncIterator[BundleServer]:
    async with plane.serving() as server:
        yield server


@pytest.fixture
async def http(plane: ControlPlane, server: BundleServer) -> AsyncIterator[httpx.AsyncClient]:
    async with plane.client() as http:
        yield http


def _bundle(version: str, *, pools: Pools = _NO_POOLS, gateway: str = "shop/edge", key: bytes = b"key") -> Bundle:
    files = (BundleFile("nginx.conf", version.encode()), BundleFile("tls/0.key", key, secret=True))
    return Bundle(gateway, version, files, pools)


def _asked(version: str = "", etag: str = "", wait: float = 0.0) -> dict[str, str]:
    return {"version": version, "etag": etag, "wait": str(wait)}


async def test_first_request_gets_everything(server: BundleServer, http: httpx.AsyncClient) -> None:
    bundle = _bundle("a", pools=pools_of((Pool("llm/gpu"),)))
    server.publish("shop/edge", bundle)
    answer = await http.get(_EDGE, params=_asked())
    delivery = decode_delivery(answer.content)
    assert (delivery.version, delivery.files, delivery.pools) == ("a", bundle.files, bundle.pools)
    assert answer.headers["content-encoding"] == "gzip"


async def test_only_the_parts_that_differ_are_sent(server: BundleServer, http: httpx.AsyncClient) -> None:
    pools = pools_of((Pool("llm/gpu"),))
    server.publish("shop/edge", _bundle("a", pools=pools))
    files = decode_delivery((await http.get(_EDGE, params=_asked("older", pools.etag))).content)
    assert (files.files is not None, files.pools) == (True, None)
    endpoints = decode_delivery((await http.get(_EDGE, params=_asked("a", "older"))).content)
    assert (endpoints.files, endpoints.pools) == (None, pools)


async def test_nothing_newer_is_answered_when_the_wait_is_over(server: BundleServer, http: httpx.AsyncClient) -> None:
    server.publish("shop/edge", _bundle("a"))
    assert (await http.get(_EDGE, params=_asked("a", _NO_POOLS.etag, wait=0.05))).status_code == 204


@pytest.mark.parametrize("first", [None, "a"])
async def test_waiting_request_gets_the_next_version_at_once(
    first: str | None, server: BundleServer, http: httpx.AsyncClient
) -> None:
    if first:
        server.publish("shop/edge", _bundle(first))
    waiting = asyncio.create_task(http.get(_EDGE, params=_asked(first or "", _NO_POOLS.etag, wait=30)))
    await http.get(_EDGE, params=_asked(first or "", _NO_POOLS.etag))  # the waiting one was there before
    assert not waiting.done()
    server.publish("shop/edge", _bundle("b"))
    async with asyncio.timeout(2):
        assert decode_delivery((await waiting).content).version == "b"


async def test_waiting_request_gets_other_pools_without_the_files(
    server: BundleServer, http: httpx.AsyncClient
) -> None:
    server.publish("shop/edge", _bundle("a"))
    waiting = asyncio.create_task(http.get(_EDGE, params=_asked("a", _NO_POOLS.etag, wait=30)))
    await http.get(_EDGE, params=_asked("a", _NO_POOLS.etag))
    pools = pools_of((Pool("llm/gpu"),))
    server.publish_pools("shop/edge", pools)
    delivery = decode_delivery((await waiting).content)
    assert (delivery.version, delivery.files, delivery.pools) == ("a", None, pools)


async def test_withdrawn_gateway_has_nothing_to_serve(server: BundleServer, http: httpx.AsyncClient) -> None:
    server.publish("shop/edge", _bundle("a"))
    server.withdraw("shop/edge")
    assert (await http.get(_EDGE, params=_asked())).status_code == 204


async def test_publishing_the_same_again_wakes_nobody(server: BundleServer, http: httpx.AsyncClient) -> None:
    server.publish("shop/edge", _bundle("a"))
    waiting = asyncio.create_task(http.get(_EDGE, params=_asked("a", _NO_POOLS.etag, wait=0.3)))
    await http.get(_EDGE, params=_asked("a", _NO_POOLS.etag))
    server.publish("shop/edge", _bundle("a"))
    assert (await waiting).status_code == 204


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("", _EDGE, 401),
        ("stolen", _EDGE, 401),
        ("good", "/bundles/bank/edge", 403),
        ("good", "/bundles/shop/other", 403),
        ("good", "/bundles/shop", 404),
        ("good", f"{_EDGE}?wait=-1", 400),
        ("good", f"{_EDGE}?wait=nan", 400),
    ],
)
async def test_request_is_refused(
    token: str, path: str, status: int, plane: ControlPlane, server: BundleServer
) -> None:
    server.publish("shop/edge", _bundle("a"))
    async with plane.client(token) as http:
        assert (await http.get(path)).status_code == status


async def test_secrets_reach_only_their_own_gateway(plane: ControlPlane, server: BundleServer) -> None:
    plane.admit("other", "bank/edge")
    server.publish("shop/edge", _bundle("a", key=b"of the shop"))
    server.publish("bank/edge", _bundle("a", key=b"of the bank", gateway="bank/edge"))
    async with plane.client("other") as http:
        assert (await http.get(_EDGE)).status_code == 403
        files = decode_delivery((await http.get("/bundles/bank/edge")).content).files or ()
    assert [file.content for file in files if file.secret] == [b"of the bank"]


async def test_nothing_secret_is_logged(
    plane: ControlPlane, server: BundleServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.publish("shop/edge", _bundle("a", key=b"hush"))
    for token in ("good", "wrongtoken"):
        async with plane.client(token) as http:
            await http.get(_EDGE)
    assert "instance refused" in caplog.text
    assert not any(word in f"{vars(each)}" for each in caplog.records for word in ("hush", "wrongtoken"))


async def test_review_that_fails_is_answered_503(plane: ControlPlane) -> None:
    async def fails(token: str) -> Identity | Denied:
        raise InfergateError("the API server does not answer")

    server = BundleServer(fails, lambda gateway, who: True, address=("127.0.0.1", 0))
    server.use(plane.certificate())
    async with server:
        plane.port = server.port
        async with plane.client() as http:
            assert (await http.get(_EDGE)).status_code == 503


async def test_report_is_known_and_announced(
    plane: ControlPlane, server: BundleServer, http: httpx.AsyncClient
) -> None:
    said = Statement("b", "a", refusal=Refusal("unknown directive", "port_80.conf", 7), seconds=0.5)
    for _ in range(2):  # the second says nothing new
        assert (await http.post("/reports/shop/edge", content=encode_statement(said))).status_code == 204
    (heard,) = server.reports("shop/edge")
    assert (heard.pod, heard.uid, heard.live, heard.report.serving) == ("edge-0", "uid-edge-0", "a", False)
    assert heard.report.refusal == NginxRefused("port_80.conf", 7, "unknown directive")
    assert plane.changes == ["shop/edge"]


async def test_instances_are_told_apart_and_leave(plane: ControlPlane, server: BundleServer) -> None:
    plane.admit("second", "shop/edge", pod="edge-1")
    for token in ("good", "second"):
        async with plane.client(token) as http:
            await http.post("/reports/shop/edge", content=encode_statement(Statement("a", "a")))
    assert [(each.pod, each.report.serving) for each in server.reports("shop/edge")] == [
        ("edge-0", True),
        ("edge-1", True),
    ]
    async with plane.client("second") as http:
        await http.post("/reports/shop/edge", content=encode_statement(Statement("a", "a", is_leaving=True)))
    assert [each.pod for each in server.reports("shop/edge")] == ["edge-0"]


@pytest.mark.parametrize(("body", "status"), [(b"{}", 400), (b"\xff", 400), (b" " * 70_000, 413)])
async def test_report_that_is_none_is_refused(
    body: bytes, status: int, server: BundleServer, http: httpx.AsyncClient
) -> None:
    assert (await http.post("/reports/shop/edge", content=body)).status_code == status
    assert server.reports("shop/edge") == ()


def test_silent_instance_is_forgotten() -> None:
    now, changes = [0.0], list[str]()
    instances = Instances(lambda: now[0], changes.append)
    instances.said("shop/edge", Identity("shop", "edge", "edge-0", "1", "edge"), Statement("a", "a"))
    instances.said("shop/edge", Identity("shop", "edge", "edge-1", "2", "edge"), Statement("a", "a"))
    now[0] = FORGOTTEN_AFTER - 1
    instances.heard("shop/edge", Identity("shop", "edge", "edge-1", "2", "edge"))
    now[0] = FORGOTTEN_AFTER + 1
    instances.forget_silent()
    assert [each.pod for each in instances.reports("shop/edge")] == ["edge-1"]
    assert len(changes) == 3


def test_instance_that_only_asked_counts() -> None:
    changes = list[str]()
    instances = Instances(lambda: 0.0, changes.append)
    for _ in range(2):
        instances.heard("shop/edge", Identity("shop", "edge", "edge-0", "1", "edge"))
    instances.said("shop/edge", Identity("shop", "edge", "edge-1", "2", "edge"), Statement("a", "a"))
    assert (instances.count("shop/edge"), len(instances.reports("shop/edge"))) == (2, 1)
    assert changes == ["shop/edge"] * 2


async def test_one_that_hangs_delays_no_other(plane: ControlPlane, server: BundleServer) -> None:
    big = _bundle("a", key=bytes(range(256)) * 100_000)
    server.publish("shop/edge", big)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(plane.ca_file)
    silent = await asyncio.open_connection("127.0.0.1", plane.port)  # never begins with TLS
    half, slow = [await asyncio.open_connection("localhost", plane.port, ssl=context) for _ in range(2)]
    half[1].write(b"GET ")
    slow[1].transport.pause_reading()  # type: ignore[attr-defined] # of a stream
    slow[1].write(b"GET /bundles/shop/edge HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer good\r\n\r\n")
    async with plane.client() as http, asyncio.timeout(5):
        waiting = asyncio.create_task(http.get(_EDGE, params=_asked("a", _NO_POOLS.etag, wait=30)))
        await http.get(_EDGE, params=_asked("a", _NO_POOLS.etag))
        server.publish("shop/edge", _bundle("b"))
        assert decode_delivery((await waiting).content).version == "b"
    for _, writer in (silent, half, slow):
        writer.transport.abort()


async def test_end_waits_for_no_goodbye(plane: ControlPlane) -> None:
    """One connection is kept for later, one has been closed by the server and its client has not looked since."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(plane.ca_file)

    def connected(header: bytes) -> ssl.SSLSocket:
        connection = context.wrap_socket(
            socket.create_connection(("localhost", plane.port)), server_hostname="localhost"
        )
        connection.sendall(b"GET /bundles/shop/edge HTTP/1.1\r\nhost: localhost\r\n%s\r\n" % header)
        assert connection.recv(1)
        return connection

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(plane.serving())
        connections = [await asyncio.to_thread(connected, each) for each in (b"", b"connection: close\r\n")]
        async with asyncio.timeout(2):
            await stack.aclose()
    for connection in connections:
        connection.close()


async def test_renewed_certificate_is_served_without_a_restart(plane: ControlPlane, server: BundleServer) -> None:
    async def served() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(plane.ca_file)
        _, writer = await asyncio.open_connection("localhost", plane.port, ssl=context)
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.close()
        return found.getpeercert(binary_form=True) or b""

    before = await served()
    server.use(plane.certificate("localhost", "other"))
    assert await served() not in (b"", before)


async def test_end_lets_waiting_requests_go(plane: ControlPlane) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(plane.serving())
        http = await stack.enter_async_context(plane.client())
        waiting = asyncio.create_task(http.get(_EDGE, params=_asked(wait=30)))
        await http.get(_EDGE, params=_asked())
        assert not waiting.done()
        async with asyncio.timeout(2):
            await server.__aexit__(None, None, None)
            assert (await waiting).status_code == 204


@pytest.mark.parametrize("begun", [b"", b"GET /bundles/shop/edge HTTP/1.1\r\nhost:"])
async def test_request_that_does_not_come_loses_its_connection(
    begun: bytes, plane: ControlPlane, server: BundleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_HEADERS_TIMEOUT", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(plane.ca_file)
    reader, writer = await asyncio.open_connection("localhost", plane.port, ssl=context)
    writer.write(begun)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.transport.abort()


async def test_kept_connection_answers_again(
    server: BundleServer, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_HEADERS_TIMEOUT", 0.05)
    for _ in range(2):
        assert (await http.get(_EDGE, params=_asked(wait=0.2))).status_code == 204
