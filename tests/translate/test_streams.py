"""Which listener and which route has the connections for a host."""

import pytest

from controller.ir.certificates import Certificate
from controller.ir.streams import StreamBackend, StreamRule
from controller.resources.meta import Key
from controller.topology.types import GatewayState, ListenerState, ParentState, StreamRouteState, Topology
from controller.translate.build import translate
from controller.translate.streams import streams_of, upstreams_of

GROUP = "gateway.networking.k8s.io"
EDGE = Key(GROUP, "Gateway", "demo", "edge")
CERTIFICATE = Certificate(Key("", "Secret", "demo", "tls"), b"chain", b"key")


def _listener(name: str, hostname: str | None = None, *, protocol: str = "TLS", ends: bool = False) -> ListenerState:
    certificates = (CERTIFICATE,) if ends or protocol == "HTTPS" else ()
    return ListenerState(
        owner=EDGE,
        name=name,
        port=443,
        protocol=protocol,
        hostname=hostname,
        certificates=certificates,
        supported_kinds=(),
        conditions=(),
        attached_routes=0,
        serves=True,
        is_passthrough=protocol == "TLS" and not ends,
    )


def _route(name: str, created: str, **listeners: tuple[str, ...]) -> StreamRouteState:
    key = Key(GROUP, "TLSRoute", "demo", name)
    parent = ParentState(parent={}, owner=EDGE, gateway=EDGE, listeners=tuple(listeners.items()), conditions=())
    rule = StreamRule(key, 0, (StreamBackend(name, 1),))
    return StreamRouteState(key, 1, (parent,), rule, rule, created)


def _topology(listeners: list[ListenerState], *routes: StreamRouteState) -> Topology:
    gateway = GatewayState(EDGE, 1, tuple(listeners), (), serves=True)
    return Topology(classes=(), gateways=(gateway,), routes=(), pools=(), upstreams=(), stream_routes=routes)


def _by_host(topology: Topology) -> dict[str, tuple[str, str]]:
    """(listener, route) by hostname."""
    return {
        host: (server.listener, server.rule.route.name if server.rule else "")
        for server in streams_of(topology, gateways={EDGE})
        for host in server.hostnames
    }


def test_host_belongs_to_its_most_specific_listener_and_route() -> None:
    listeners = [_listener("any"), _listener("wild", "*.example"), _listener("own", "a.example")]
    found = _by_host(
        _topology(
            listeners,
            _route("everything", "1", any=("*",)),
            _route("old", "2", wild=("*.example",)),
            _route("deep", "3", wild=("*.b.example",)),
            _route("late", "4", wild=("*.example",)),
        )
    )

    assert found == {
        "*": ("any", "everything"),
        "*.example": ("wild", "old"),
        "*.b.example": ("wild", "deep"),
        "a.example": ("own", ""),
    }


def test_oldest_of_routes_that_match_alike_has_the_connections() -> None:
    newer, older = _route("a", "2", tls=("a.example",)), _route("b", "1", tls=("a.example",))
    topology = _topology([_listener("tls")], newer, older)

    assert _by_host(topology)["a.example"] == ("tls", "b")
    assert upstreams_of(streams_of(topology, gateways={EDGE})) == {"b"}


def test_host_of_an_https_listener_is_not_passed_on() -> None:
    listeners = [_listener("any"), _listener("web", "*.example", protocol="HTTPS")]
    found = _by_host(_topology(listeners, _route("r", "1", any=("a.example", "b.other"))))

    assert found == {"*": ("any", ""), "b.other": ("any", "r")}


def test_requests_for_a_host_that_is_passed_on_are_elsewhere() -> None:
    listeners = [_listener("web", "*.example", protocol="HTTPS"), _listener("own", "a.example")]
    config = translate(_topology(listeners), name="local", gateways={EDGE})

    assert {host: server.is_elsewhere for server in config.servers for host in server.hostnames} == {
        "*.example": False,
        "a.example": True,
    }


def test_port_without_https_has_no_server_of_requests() -> None:
    config = translate(_topology([_listener("own", "a.example")]), name="local", gateways={EDGE})

    assert config.servers == ()
    assert [server.hostnames for server in config.streams] == [("a.example",)]


def test_certificate_is_for_hosts_with_a_route() -> None:
    topology = _topology([_listener("ends", "*.example", ends=True)], _route("r", "1", ends=("a.example",)))
    servers = {server.hostnames: server for server in streams_of(topology, gateways={EDGE})}

    assert servers[("a.example",)].certificates == (CERTIFICATE,)
    assert servers[("*.example",)].certificates == ()


@pytest.mark.parametrize("gateways", [set(), {Key(GROUP, "Gateway", "demo", "other")}])
def test_other_gateways_have_nothing(gateways: set[Key]) -> None:
    topology = _topology([_listener("own", "a.example")], _route("r", "1", own=("a.example",)))

    assert streams_of(topology, gateways=gateways) == ()
