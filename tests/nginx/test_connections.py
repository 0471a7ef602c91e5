"""Connections and datagrams that are passed on, through a real nginx."""

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx import connections
from tests.nginx.certificates import certificate
from tests.nginx.connections import (
    Talker,
    ask,
    certificate_of,
    datagram_service,
    dial,
    echo,
    greeting,
    listener,
    stream_route,
    talk,
    trusting,
)
from tests.nginx.gateway import Gateway, run_gateway, until
from tests.nginx.resources import Json, route, rule, secret, service, to_service
from tests.nginx.resources import listener as http_listener
from tests.nginx.servers import nobody, serve, server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

PORTS = ("tls", "tcp", "weighed", "udp", "drops", "idle")


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return dict(zip(PORTS, free_ports(len(PORTS)), strict=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, ports: dict[str, int]) -> AsyncIterator[Gateway]:
    """One port has TLS of every kind; others have connections and datagrams."""
    ends = {"mode": "Terminate", "certificateRefs": [{"name": "wild"}]}
    passes = {"mode": "Passthrough"}

    def listeners(port: int) -> list[Json]:
        return [
            http_listener(port),
            http_listener(ports["tls"], name="https", hostname="*.web.example", certificate="web"),
            listener("any", ports["tls"], "TLS", tls=passes),
            listener("mine", ports["tls"], "TLS", tls=passes, hostname="passes.web.example"),
            listener("ends", ports["tls"], "TLS", tls=ends, hostname="*.ends.example"),
            listener(
                "one",
                ports["tls"],
                "TLS",
                tls={**ends, "certificateRefs": [{"name": "one"}]},
                hostname="one.ends.example",
            ),
            listener("tcp", ports["tcp"], "TCP"),
            listener("weighed", ports["weighed"], "TCP"),
            listener("udp", ports["udp"], "UDP"),
            listener("drops", ports["drops"], "UDP"),
            listener("idle", ports["idle"], "TCP"),
        ]

    pairs = {
        name: certificate(host)
        for name, host in (("web", "*.web.example"), ("wild", "*.ends.example"), ("one", "one.ends.example"))
    }
    async with AsyncExitStack() as stack:
        chain, key = certificate("backend.example")
        secure = server_tls(chain, key)
        (root / "backend.der").write_bytes(ssl.PEM_cert_to_DER_cert(chain.decode()))
        for name, (its, _) in pairs.items():
            (root / f"{name}.der").write_bytes(ssl.PEM_cert_to_DER_cert(its.decode()))
        tls = {name: await stack.enter_async_context(talk(name, tls=secure)) for name in ("a", "b", "c")}
        plain = {name: await stack.enter_async_context(talk(name)) for name in ("x", "y")}
        echoes = {name: await stack.enter_async_context(echo(name)) for name in ("u", "v")}
        last = await stack.enter_async_context(talk("last", lasts=True))
        web = await stack.enter_async_context(serve(name="web"))
        dead = stack.enter_context(nobody())
        gateway = await stack.enter_async_context(run_gateway(root, nginx, listeners=listeners))
        await gateway.apply(
            "routes.yaml",
            *(secret(name, chain=its, key=own) for name, (its, own) in pairs.items()),
            *(service(name, item.address, protocol="tls") for name, item in tls.items()),
            *(service(name, item.address) for name, item in plain.items()),
            *(datagram_service(name, item.address) for name, item in echoes.items()),
            service("web", web.address),
            service("last", last.address),
            service("empty"),
            service("lame", dead, plain["x"].address),
            route("web", rule(to_service("web")), section="https"),
            stream_route("TLSRoute", "a", to_service("a"), section="any", hostnames=("a.example", "default")),
            stream_route("TLSRoute", "b", to_service("b"), section="any", hostnames=("*.example",)),
            stream_route("TLSRoute", "c", to_service("c"), section="mine", hostnames=("passes.web.example",)),
            stream_route("TLSRoute", "gone", to_service("gone"), section="any", hostnames=("gone.example",)),
            stream_route("TLSRoute", "empty", to_service("empty"), section="any", hostnames=("empty.example",)),
            stream_route("TLSRoute", "x", to_service("x"), section="ends", hostnames=("x.ends.example",)),
            stream_route("TLSRoute", "lost", to_service("gone"), section="ends", hostnames=("lost.ends.example",)),
            stream_route("TCPRoute", "y", to_service("y"), to_service("y", weight=2), section="one"),
            stream_route("TCPRoute", "lame", to_service("lame"), section="tcp"),
            stream_route(
                "TCPRoute",
                "weighed",
                to_service("x", weight=50),
                to_service("y", weight=25),
                to_service("last", weight=0),
                to_service("gone", weight=25),
                section="weighed",
            ),
            stream_route("UDPRoute", "both", to_service("u", weight=70), to_service("v", weight=30), section="udp"),
            stream_route("UDPRoute", "half", to_service("u"), to_service("gone"), section="drops"),
        )
        yield gateway


NAMES = [
    ("a.example", "a"),
    ("A.Example", "a"),
    ("default", "a"),
    ("other.example", "b"),
    ("deep.other.example", "b"),
    ("passes.web.example", "c"),
    ("gone.example", ""),
    ("empty.example", ""),
    ("a.other", ""),
    ("x.ends.example", "x"),
    ("one.ends.example", "y"),
    ("lost.ends.example", ""),
    ("nobody.ends.example", "refused: TLSV1_UNRECOGNIZED_NAME"),
]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(("name", "expected"), NAMES)
async def test_name_of_the_handshake_chooses_the_backend(ports: dict[str, int], name: str, expected: str) -> None:
    assert await greeting(ports["tls"], name=name) == expected


CERTIFICATES = [
    ("a.example", "backend"),
    ("passes.web.example", "backend"),
    ("x.ends.example", "wild"),
    ("one.ends.example", "one"),
    ("shop.web.example", "web"),
]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(("name", "expected"), CERTIFICATES)
async def test_certificate_is_that_of_who_ends_tls(root: Path, ports: dict[str, int], name: str, expected: str) -> None:
    assert await certificate_of(ports["tls"], name) == (root / f"{expected}.der").read_bytes()


@pytest.mark.usefixtures("gateway")
async def test_what_is_no_tls_is_closed(ports: dict[str, int]) -> None:
    async with asyncio.timeout(connections.LIMIT), dial(ports["tls"]) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
    assert b"200" not in answer


@pytest.mark.usefixtures("gateway")
async def test_first_message_may_come_in_pieces(ports: dict[str, int]) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = trusting().wrap_bio(incoming, outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    hello = outgoing.read()
    async with asyncio.timeout(connections.LIMIT), dial(ports["tls"]) as (reader, writer):
        for piece in (hello[:3], hello[3:70], hello[70:]):
            writer.write(piece)
            await writer.drain()
        assert (await reader.readexactly(1)) == b"\x16"


async def test_addresses_of_clients_are_kept_on_a_port_with_all_kinds_of_tls(
    gateway: Gateway, ports: dict[str, int]
) -> None:
    transport = httpx.AsyncHTTPTransport(verify=trusting(), local_address="127.0.0.2", http2=True)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        answer = await http.get(
            f"https://127.0.0.1:{ports['tls']}/",
            headers={"Host": "shop.web.example", "X-Request-Id": "kept"},
            extensions={"sni_hostname": "shop.web.example"},
        )
    headers = dict(answer.json()["headers"])
    assert (answer.http_version, answer.json()["server"]) == ("HTTP/2", "web")
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.2", "https")
    assert (await gateway.logged("kept"))["client"] == "127.0.0.2"

    async with asyncio.timeout(connections.LIMIT):
        async with dial(ports["tls"], name="x.ends.example", source="127.0.0.3") as (reader, _):
            assert await reader.readline() == b"x\n"
    await until(lambda: any(b'"client":"127.0.0.3"' in line for line in gateway.log_lines()))
    (line,) = (json.loads(line) for line in gateway.log_lines() if b'"client":"127.0.0.3"' in line)
    assert (line["name"], line["protocol"], line["status"]) == ("x.ends.example", "TCP", 200)


async def test_connection_is_logged_with_its_route_and_endpoint(gateway: Gateway, ports: dict[str, int]) -> None:
    async with asyncio.timeout(connections.LIMIT), dial(ports["weighed"], source="127.0.0.4") as (reader, writer):
        greeted = await reader.readline()
        writer.write_eof()
        await reader.read()
    await until(lambda: any(b'"client":"127.0.0.4"' in line for line in gateway.log_lines()))
    (line,) = (json.loads(line) for line in gateway.log_lines() if b'"client":"127.0.0.4"' in line)
    assert line["route"] == ("TCPRoute default/weighed" if greeted else "")
    assert line["response_bytes"] == len(greeted)


@pytest.mark.usefixtures("gateway")
async def test_target_with_a_port_keeps_it_on_a_port_with_all_kinds_of_tls(ports: dict[str, int]) -> None:
    async with asyncio.timeout(connections.LIMIT), dial(ports["tls"], name="shop.web.example") as (reader, writer):
        target = f"https://shop.web.example:{ports['tls']}/"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    headers = dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
    assert headers["host"] == f"shop.web.example:{ports['tls']}"


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("host", ["passes.web.example", "one.ends.example", "a.example"])
async def test_request_for_a_host_that_is_passed_on_is_told_so(ports: dict[str, int], host: str) -> None:
    async with httpx.AsyncClient(verify=trusting(), trust_env=False, http2=True) as http:
        answer = await http.get(
            f"https://127.0.0.1:{ports['tls']}/",
            headers={"Host": host},
            extensions={"sni_hostname": "shop.web.example"},
        )
    assert answer.status_code == 421


@pytest.mark.usefixtures("gateway")
async def test_weights_divide_connections_and_a_missing_backend_keeps_its_share(ports: dict[str, int]) -> None:
    counts = Counter([await greeting(ports["weighed"]) for _ in range(800)])

    assert set(counts) == {"x", "y", ""}
    # Five standard deviations of 800 draws.
    assert abs(counts["x"] - 400) < 71
    assert abs(counts["y"] - 200) < 62
    assert abs(counts[""] - 200) < 62


@pytest.mark.usefixtures("gateway")
async def test_endpoint_that_cannot_be_reached_is_passed_over(ports: dict[str, int]) -> None:
    assert {await greeting(ports["tcp"]) for _ in range(10)} == {"x"}


@pytest.mark.usefixtures("gateway")
async def test_listener_without_routes_closes_connections(ports: dict[str, int]) -> None:
    assert await greeting(ports["idle"]) == ""


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("port", "name"), [("tcp", None), ("tls", "a.example"), ("tls", "x.ends.example"), ("tls", "one.ends.example")]
)
async def test_bytes_arrive_as_they_were_sent(ports: dict[str, int], port: str, name: str | None) -> None:
    sent = bytes(range(256)) * 8192
    async with asyncio.timeout(4 * connections.LIMIT), dial(ports[port], name=name) as (reader, writer):
        await reader.readline()
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


@pytest.mark.usefixtures("gateway")
async def test_datagrams_of_one_client_are_one_conversation(ports: dict[str, int]) -> None:
    for _ in range(8):  # with two workers, each second one would go to the other
        answers = await ask(ports["udp"], b"1", b"2", b"3")
        assert {answer.partition(b" ")[0] for answer in answers} in ({b"u"}, {b"v"})
        assert [answer.partition(b" ")[2] for answer in answers] == [b"1", b"2", b"3"]


@pytest.mark.usefixtures("gateway")
async def test_weights_divide_clients_of_datagrams(ports: dict[str, int]) -> None:
    counts = Counter([answer[:1] for _ in range(400) for answer in await ask(ports["udp"], b"x")])

    assert set(counts) == {b"u", b"v"}
    assert abs(counts[b"u"] - 280) < 47  # five standard deviations


@pytest.mark.usefixtures("gateway")
async def test_datagrams_for_a_missing_backend_are_dropped(ports: dict[str, int]) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(ports["drops"], b"x", patience=2.0)) for _ in range(60)]
    answered = sum(1 for task in tasks if task.result())

    assert 10 < answered < 50  # five standard deviations
    assert {answer for task in tasks for answer in task.result()} == {b"u x"}


async def _last(talker: Talker, port: int, name: str | None) -> bytes:
    async with asyncio.timeout(connections.LIMIT), dial(port, name=name) as (reader, writer):
        await reader.readline()
        writer.write(b"x" * 1000)
        writer.write_eof()
        return await reader.read()


async def test_backend_may_answer_once_the_client_has_said_all(tmp_path: Path, nginx: Nginx) -> None:
    (port,) = free_ports(1)
    async with (
        talk("last", lasts=True) as last,
        run_gateway(
            tmp_path, nginx, listeners=lambda own: [http_listener(own), listener("tcp", port, "TCP")]
        ) as gateway,
    ):
        await gateway.apply("s.yaml", service("last", last.address))
        await gateway.apply("r.yaml", stream_route("TCPRoute", "last", to_service("last"), section="tcp"))
        assert await _last(last, port, None) == b"1000\n"


async def test_connections_live_through_changes_and_new_ones_follow_them(tmp_path: Path, nginx: Nginx) -> None:
    (port,) = free_ports(1)
    async with (
        talk("old") as old,
        talk("new") as new,
        run_gateway(
            tmp_path, nginx, listeners=lambda own: [http_listener(own), listener("tcp", port, "TCP")]
        ) as gateway,
    ):
        await gateway.apply("s.yaml", service("old", old.address), service("new", new.address))
        await gateway.apply("r.yaml", stream_route("TCPRoute", "r", to_service("old"), section="tcp"))
        async with asyncio.timeout(4 * connections.LIMIT), dial(port) as (reader, writer):
            assert await reader.readline() == b"old\n"
            await gateway.apply("r.yaml", stream_route("TCPRoute", "r", to_service("new"), section="tcp"))
            assert await greeting(port) == "new"
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"


async def test_clients_that_say_their_name_after_a_reload_are_served(tmp_path: Path, nginx: Nginx) -> None:
    ends, passes = free_ports(2)
    chain, key = certificate("a.example")
    terminate = {"mode": "Terminate", "certificateRefs": [{"name": "a"}]}

    def listeners(port: int) -> list[Json]:
        return [
            http_listener(port),
            listener("ends", ends, "TLS", tls=terminate),
            listener("passes", passes, "TLS", tls={"mode": "Passthrough"}),
        ]

    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(talk("plain"))
        secure = await stack.enter_async_context(talk("secure", tls=server_tls(chain, key)))
        gateway = await stack.enter_async_context(run_gateway(tmp_path, nginx, listeners=listeners))
        await gateway.apply(
            "all.yaml",
            secret("a", chain=chain, key=key),
            service("plain", plain.address),
            service("secure", secure.address),
            stream_route("TLSRoute", "ends", to_service("plain"), section="ends", hostnames=("a.example",)),
            stream_route("TLSRoute", "passes", to_service("secure"), section="passes", hostnames=("a.example",)),
        )
        async with asyncio.timeout(4 * connections.LIMIT):
            early = [await stack.enter_async_context(dial(port)) for port in (ends, passes)]
            # A connection that is accepted later is answered: these two are as well.
            assert [await greeting(port, name="a.example") for port in (ends, passes)] == ["plain", "secure"]
            before = gateway.workers()
            await gateway.apply("web.yaml", route("web", rule(to_service("plain"))))
            assert before & gateway.workers()
            greeted = []
            for reader, writer in early:
                await writer.start_tls(trusting(), server_hostname="a.example")
                greeted.append(await reader.readline())
        assert greeted == [b"plain\n", b"secure\n"]


async def test_listener_that_comes_and_goes_opens_and_closes_its_port(tmp_path: Path, nginx: Nginx) -> None:
    tls, udp = free_ports(2)
    passes = {"tls": {"mode": "Passthrough"}}
    chain, key = certificate("a.example")
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(talk("t", tls=server_tls(chain, key)))
        echoed = await stack.enter_async_context(echo("u"))
        gateway = await stack.enter_async_context(run_gateway(tmp_path, nginx))
        before = (gateway.directory / "gateway.yaml").read_text()
        edge = json.loads(before)
        edge["spec"]["listeners"] += [listener("tls", tls, "TLS", **passes), listener("udp", udp, "UDP")]
        assert await _closed(tls)
        await gateway.apply(
            "all.yaml",
            service("t", backend.address),
            datagram_service("u", echoed.address),
            stream_route("TLSRoute", "t", to_service("t"), section="tls", hostnames=("a.example",)),
            stream_route("UDPRoute", "u", to_service("u"), section="udp"),
        )
        for _ in range(2):
            await gateway.apply("gateway.yaml", edge)
            assert await greeting(tls, name="a.example") == "t"
            assert await ask(udp, b"x") == [b"u x"]
            await gateway.apply("gateway.yaml", json.loads(before))
            assert await _closed(tls)
            assert await ask(udp, b"x", patience=0.2) in ([], [b""])


async def test_datagrams_of_a_client_are_answered_over_a_reload(tmp_path: Path, nginx: Nginx) -> None:
    (port,) = free_ports(1)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        echoed = await stack.enter_async_context(echo("u"))
        gateway = await stack.enter_async_context(
            run_gateway(tmp_path, nginx, listeners=lambda own: [http_listener(own), listener("udp", port, "UDP")])
        )
        await gateway.apply("s.yaml", datagram_service("u", echoed.address), service("web"))
        await gateway.apply("r.yaml", stream_route("UDPRoute", "u", to_service("u"), section="udp"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", port))
            for number in range(3):
                async with asyncio.timeout(connections.LIMIT):
                    await loop.sock_sendall(client, b"%d" % number)
                    assert await loop.sock_recv(client, 100) == b"u %d" % number
                await gateway.apply("web.yaml", route("web", rule(to_service("web"), path=f"/{number}")))
        assert len(echoed.clients) == 3  # each version has a conversation of its own


async def _closed(port: int) -> bool:
    try:
        async with asyncio.timeout(connections.LIMIT), dial(port):
            return False
    except ConnectionRefusedError:
        return True


async def test_port_of_datagrams_that_is_taken_costs_no_other(tmp_path: Path, nginx: Nginx) -> None:
    (port,) = free_ports(1)
    async with talk("t") as backend, echo("other") as other:
        taken = int(other.address.rpartition(":")[2])
        async with run_gateway(
            tmp_path,
            nginx,
            listeners=lambda own: [http_listener(own), listener("udp", taken, "UDP"), listener("tcp", port, "TCP")],
        ) as gateway:
            await gateway.apply("s.yaml", service("t", backend.address))
            await gateway.apply("r.yaml", stream_route("TCPRoute", "t", to_service("t"), section="tcp"))
            assert await greeting(port) == "t"
            states = {item["name"]: item["conditions"] for item in gateway.status("Gateway", "edge")["listeners"]}
    reasons = {name: {item["type"]: item["reason"] for item in found} for name, found in states.items()}
    assert reasons["udp"]["Accepted"] == "PortUnavailable"
    assert reasons["tcp"]["Programmed"] == "Programmed"
