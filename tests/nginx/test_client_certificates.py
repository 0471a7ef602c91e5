"""Clients that show a certificate, none, or another one."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx import connections
from tests.nginx.certificates import Authority, certificate
from tests.nginx.gateway import Gateway, run_gateway
from tests.nginx.resources import Json, authorities, gateway, listener, route, rule, secret, service, to_service
from tests.nginx.servers import serve, server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

ONE, TWO = Authority("one"), Authority("two")
CLIENTS = {
    "one": ONE.certificate("client.example"),
    "two": TWO.certificate("client.example"),
    "expired": ONE.certificate("client.example", days=-1),
    "its own": certificate("client.example"),
}


@dataclass(frozen=True)
class Edge:
    """A Gateway that asks for certificates of `one` on `closed`, takes any on `fallback`, and one beside it on `closed`
    that asks for none for `open.example`.
    """

    gateway: Gateway
    closed: int
    fallback: int
    shared: int
    """As `closed`, and passes connections for `passes.example` on."""
    files: Path

    def context(self, client: str | None, *, tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = tls
        if client:
            path = self.files / f"{client}.pem"
            path.write_bytes(b"".join(CLIENTS[client]))
            context.load_cert_chain(path)
        return context

    async def ask(
        self, port: int, client: str | None, *, name: str = "first.example", host: str = "", http2: bool = False
    ) -> httpx.Response | None:
        """The answer to a POST on a connection of its own; None where there is none."""
        context = self.context(client)
        async with httpx.AsyncClient(verify=context, trust_env=False, http2=http2, http1=not http2) as http:
            try:
                return await http.post(
                    f"https://127.0.0.1:{port}/a%20b?c=d",
                    content=b"body",
                    headers={"Host": host or name},
                    extensions={"sni_hostname": name},
                )
            except (httpx.RemoteProtocolError, httpx.ReadError):
                return None


def _frontend(fallback: int, *, authority: str) -> Json:
    references = [{"group": "", "kind": "ConfigMap", "name": authority}]
    asked = {"validation": {"caCertificateRefs": references, "mode": "AllowInsecureFallback"}}
    default = {"validation": {"caCertificateRefs": references}}
    return {"frontend": {"default": default, "perPort": [{"port": fallback, "tls": asked}]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(root: Path, nginx: Nginx, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    closed, fallback, shared = free_ports(3)
    chain, key = certificate("*.example")
    passes = connections.listener("passes", shared, "TLS", tls={"mode": "Passthrough"}, hostname="passes.example")
    async with AsyncExitStack() as stack:
        cart = await stack.enter_async_context(serve(name="cart"))
        secure = server_tls(chain, key)
        talker = await stack.enter_async_context(connections.talk("talker", tls=secure))
        edge = await stack.enter_async_context(run_gateway(root, nginx))
        hosts = ("first", "second")
        await edge.apply(
            "gateway.yaml",
            gateway(
                listener(edge.port),
                *(listener(closed, name=name, hostname=f"{name}.example", certificate="all") for name in hosts),
                listener(fallback, name="fallback", hostname="*.example", certificate="all"),
                listener(shared, name="shared", hostname="first.example", certificate="all"),
                passes,
                tls=_frontend(fallback, authority="one"),
            ),
            {
                **gateway(listener(closed, name="open", hostname="open.example", certificate="all")),
                "metadata": {"name": "open"},
            },
            secret("all", chain=chain, key=key),
            authorities("one", ONE.chain),
            service("cart", cart.address),
            service("talker", talker.address, protocol="tls"),
            connections.stream_route(
                "TLSRoute", "passes", to_service("talker"), section="passes", hostnames=("passes.example",)
            ),
            route("cart", rule(to_service("cart")), parents=[{"name": "edge"}, {"name": "open"}]),
        )
        yield Edge(edge, closed, fallback, shared, tmp_path_factory.mktemp("clients"))


@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize(("client", "is_served"), [("one", True), ("two", False), ("expired", False), (None, False)])
async def test_client_needs_a_certificate_of_the_authority(
    edge: Edge, client: str | None, is_served: bool, http2: bool
) -> None:
    answer = await edge.ask(edge.closed, client, http2=http2)

    assert (answer is not None and answer.status_code == 200) == is_served
    assert answer is None or is_served


@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize("client", ["one", "two", "expired", "its own", None])
async def test_any_client_is_served_as_it_asked_where_a_certificate_is_not_needed(
    edge: Edge, client: str | None, http2: bool
) -> None:
    answer = await edge.ask(edge.fallback, client, http2=http2)

    assert answer is not None
    assert answer.status_code == 200
    assert (answer.json()["method"], answer.json()["target"]) == ("POST", "/a%20b?c=d")


@pytest.mark.parametrize("client", ["one", None])
async def test_listener_of_another_gateway_asks_for_nothing(edge: Edge, client: str | None) -> None:
    answer = await edge.ask(edge.closed, client, name="open.example")

    assert answer is not None
    assert answer.status_code == 200


@pytest.mark.parametrize(("name", "host"), [("open.example", "first.example"), ("first.example", "second.example")])
async def test_connection_that_was_opened_for_one_host_does_not_reach_another(edge: Edge, name: str, host: str) -> None:
    answer = await edge.ask(edge.closed, "one", name=name, host=host)

    assert answer is not None
    assert answer.status_code == 421


@pytest.mark.parametrize(("client", "status"), [("one", 200), ("two", None), (None, None)])
async def test_port_that_passes_other_connections_on_asks_as_well(
    edge: Edge, client: str | None, status: int | None
) -> None:
    assert await connections.greeting(edge.shared, name="passes.example") == "talker"
    answer = await edge.ask(edge.shared, client)

    assert (answer and answer.status_code) == status


async def test_client_that_names_no_host_is_turned_away(edge: Edge) -> None:
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", edge.closed, ssl=edge.context("one"), server_hostname="")


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_session_of_an_open_listener_opens_no_closed_one(edge: Edge, tls: ssl.TLSVersion) -> None:
    context = edge.context(None, tls=tls)

    def asked(name: str, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", edge.closed), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name, session=session) as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            return secure.recv(4096), secure.session

    answer, session = await asyncio.to_thread(asked, "open.example", None)
    assert answer.startswith(b"HTTP/1.1 200")
    assert session is not None
    refused, _ = await asyncio.to_thread(asked, "first.example", session)
    assert refused == b""


async def test_certificates_of_an_authority_that_came_count_and_those_of_one_that_went_do_not(edge: Edge) -> None:
    path = edge.gateway.directory / "gateway.yaml"
    text = path.read_text()
    await edge.gateway.apply("more.yaml", authorities("two", TWO.chain))
    path.write_text(text.replace('"name": "one"', '"name": "two"', 2))
    await edge.gateway.live()
    answers = [await edge.ask(edge.closed, client) for client in ("one", "two")]
    path.write_text(text)
    await edge.gateway.apply("more.yaml")

    assert [answer and answer.status_code for answer in answers] == [None, 200]
