"""What is rendered of connections and datagrams."""

import pytest

from controller.bundle import Bundle
from controller.ir.certificates import Certificate
from controller.ir.streams import Mode, Opening, StreamBackend, StreamRule, StreamServer, Transport
from controller.ir.types import GatewayConfig, Upstream
from controller.render.files import RenderSettings, Subject, opening_of, render, trace
from controller.render.quoting import map_key
from controller.resources.meta import Key

GROUP = "gateway.networking.k8s.io"
EDGE = Key(GROUP, "Gateway", "demo", "edge")
ROUTE = Key(GROUP, "TCPRoute", "demo", "db")
DB = Key("", "Service", "demo", "db")


def _server(*upstreams: str, transport: Transport = Transport.TCP, mode: Mode = Mode.OPAQUE) -> StreamServer:
    route = ROUTE if transport is Transport.TCP else ROUTE._replace(kind="UDPRoute")
    rule = StreamRule(route, 0, tuple(StreamBackend(upstream, 1) for upstream in upstreams))
    certificates = (Certificate(Key("", "Secret", "demo", "tls"), b"chain", b"key"),) if mode is Mode.TERMINATE else ()
    return StreamServer(EDGE, "l", 5432, transport, mode, ("*",), certificates, rule)


def _rendered(*servers: StreamServer) -> Bundle:
    upstreams = (Upstream("demo/db:1", DB, ("10.0.0.1:1",)), Upstream("demo/db:2", DB, ("10.0.0.1:2",)))
    config = GatewayConfig("local", (), (), (), streams=servers, stream_upstreams=upstreams if servers else ())
    return render(config, RenderSettings(listen_addresses=("127.0.0.1", "[::1]")))


def _text(bundle: Bundle, path: str) -> str:
    return next(item.content.decode() for item in bundle.files if item.path == path)


def test_gateway_without_connections_has_nothing_of_them() -> None:
    bundle = _rendered()

    assert "\nstream {" not in _text(bundle, "nginx.conf")
    assert "\nstream {" in _text(_rendered(_server("demo/db:1")), "nginx.conf")
    assert not [item.path for item in bundle.files if item.path.startswith(("tcp_", "udp_", "connections"))]


def test_one_upstream_takes_no_detour() -> None:
    text = _text(_rendered(_server("demo/db:1")), "tcp_5432.conf")

    assert "listen 127.0.0.1:5432 so_keepalive=10m:1m:5;" in text
    assert "listen [::1]:5432 so_keepalive=10m:1m:5;" in text
    assert "proxy_pass service_demo_db_1;" in text
    assert "to_" not in _text(_rendered(_server("demo/db:1")), "connections.conf")


@pytest.mark.parametrize("transport", list(Transport))
def test_route_that_leads_nowhere_is_closed_on_the_spot(transport: Transport) -> None:
    bundle = _rendered(_server("", "", transport=transport))
    text = _text(bundle, f"{transport.lower()}_5432.conf")

    assert 'return "";' in text
    assert "pass" not in text
    assert "closed.sock" not in _text(bundle, "connections.conf")


def test_shares_of_datagrams_go_to_upstreams_and_of_connections_to_sockets() -> None:
    datagrams = _text(_rendered(_server("demo/db:1", "", transport=Transport.UDP)), "connections.conf")
    connections = _text(_rendered(_server("demo/db:1", "")), "connections.conf")

    assert "50.00% service_demo_db_1;\n    * infergate_dropped;" in datagrams
    assert "* unix:run/closed.sock;" in connections
    assert "infergate_dropped" not in connections


def test_names_of_sockets_are_short_and_differ() -> None:
    long = ("demo-" + "n" * 58 + "/" + "s" * 63 + ":65535", "demo-" + "n" * 58 + "/" + "s" * 63 + ":65534")
    text = _text(_rendered(_server(*long)), "connections.conf")
    sockets = [line.split()[1].rstrip(";") for line in text.splitlines() if line.startswith("    listen")]

    assert len(set(sockets)) == 2
    assert all(len(item) < 40 for item in sockets)


def test_line_is_traced_to_its_route() -> None:
    bundle = _rendered(_server("demo/db:1", "demo/db:2"))
    line = _text(bundle, "connections.conf").splitlines().index("    proxy_pass service_demo_db_1;") + 1

    assert trace(bundle, path="connections.conf", line=line) == (Subject(ROUTE, None),)


def test_certificate_is_traced_to_its_listener() -> None:
    bundle = _rendered(_server("demo/db:1", mode=Mode.TERMINATE))
    lines = _text(bundle, "tcp_5432.conf").splitlines()
    line = lines.index("    ssl_certificate tls/demo_tls.crt;") + 1

    assert trace(bundle, path="tcp_5432.conf", line=line) == (Subject(EDGE, "l"),)


OPENINGS = [
    ("port_80.conf", Opening(80)),
    ("tcp_5432.conf", Opening(5432)),
    ("udp_53.conf", Opening(53, Transport.UDP)),
    ("connections.conf", None),
    ("proxy/tcp_1.conf", None),
]


@pytest.mark.parametrize(("path", "opening"), OPENINGS)
def test_file_tells_what_it_opens(path: str, opening: Opening | None) -> None:
    assert opening_of(path) == opening


KEYS = [
    ("*", "default"),
    ("a.example", '"a.example"'),
    ("*.a.example", '"*.a.example"'),
    ("default", r'"\\default"'),
    ("include", r'"\\include"'),
]


@pytest.mark.parametrize(("hostname", "key"), KEYS)
def test_hostname_is_no_word_of_a_map(hostname: str, key: str) -> None:
    assert map_key(hostname) == key
