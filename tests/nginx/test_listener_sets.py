"""Requests to listeners of ListenerSets, of their Gateway, and from one to the other."""

import ssl
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import Nginx
from tests.nginx import connections
from tests.nginx.certificates import certificate
from tests.nginx.gateway import run_gateway
from tests.nginx.resources import gateway, listener, listener_set, route, rule, secret, service, to_service
from tests.nginx.servers import serve, server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio]

OPEN = {"namespaces": {"from": "Same"}}


async def test_sets_listener_comes_and_goes_beside_the_gateways(root: Path, nginx: Nginx) -> None:
    async with serve(name="cart") as cart, run_gateway(root / "plain", nginx) as edge:
        own = listener(edge.port, hostname="own.example")
        await edge.apply("routes.yaml", service("cart", cart.address), *_routes())
        await edge.apply("gateway.yaml", gateway(listener(edge.port, hostname="edge.example"), allowedListeners=OPEN))

        async def answer(host: str, path: str) -> int:
            # A connection of its own: one that is kept belongs to the version that it was opened under.
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"{edge.url}{path}", headers={"Host": host})).status_code

        assert await answer("own.example", "/set") == 404
        await edge.apply("set.yaml", listener_set("own", own))
        assert [await answer("own.example", path) for path in ("/set", "/gateway")] == [200, 404]
        assert [await answer("edge.example", path) for path in ("/set", "/gateway")] == [404, 200]
        assert edge.status("Gateway", "edge")["attachedListenerSets"] == 1
        await edge.apply("set.yaml")
        assert await answer("own.example", "/set") == 404
        assert await answer("edge.example", "/gateway") == 200


async def test_connection_to_the_gateways_listener_does_not_reach_the_sets(root: Path, nginx: Nginx) -> None:
    (port,) = free_ports(1)
    chain, key = certificate("*.example")
    async with serve(name="cart") as cart, run_gateway(root / "secure", nginx) as edge:
        secure = [listener(port, name="tls", hostname=f"{name}.example", certificate="all") for name in ("edge", "own")]
        await edge.apply("routes.yaml", service("cart", cart.address), *_routes(), secret("all", chain=chain, key=key))
        await edge.apply("gateway.yaml", gateway(listener(edge.port), secure[0], allowedListeners=OPEN))
        await edge.apply("set.yaml", listener_set("own", secure[1]))

        async def answer(name: str, host: str) -> int:
            url, extensions = f"https://127.0.0.1:{port}/set", {"sni_hostname": name}
            async with httpx.AsyncClient(verify=_trusting(), trust_env=False) as http:
                return (await http.get(url, headers={"Host": host}, extensions=extensions)).status_code

        assert await answer("own.example", "own.example") == 200
        assert await answer("edge.example", "own.example") == 421


async def test_sets_listeners_pass_on_connections_and_datagrams(root: Path, nginx: Nginx) -> None:
    tls, tcp, udp = free_ports(3)
    chain, key = certificate("*.example")
    secure = server_tls(chain, key)
    async with (
        serve(name="web") as web,
        connections.talk("a", tls=secure) as a,
        connections.talk("b") as b,
        connections.echo("c") as c,
        run_gateway(root / "connections", nginx) as edge,
    ):
        await edge.apply(
            "gateway.yaml",
            gateway(
                listener(edge.port),
                listener(tls, name="https", hostname="web.example", certificate="all"),
                allowedListeners=OPEN,
            ),
        )
        passes = {"tls": {"mode": "Passthrough"}, "hostname": "a.example"}
        of_set = [
            connections.listener("tls", tls, "TLS", **passes),
            connections.listener("tcp", tcp, "TCP"),
            connections.listener("udp", udp, "UDP"),
        ]
        routes = [("TLSRoute", "tls", "a", ("a.example",)), ("TCPRoute", "tcp", "b", ()), ("UDPRoute", "udp", "c", ())]
        await edge.apply(
            "set.yaml",
            listener_set("own", *of_set),
            secret("all", chain=chain, key=key),
            service("web", web.address),
            service("a", a.address, protocol="tls"),
            service("b", b.address),
            connections.datagram_service("c", c.address),
            route("web", rule(to_service("web")), section="https"),
            *(
                connections.stream_route(
                    kind, section, to_service(name), section=section, hostnames=hostnames, listener_set="own"
                )
                for kind, section, name, hostnames in routes
            ),
        )

        assert await connections.greeting(tls, name="a.example") == "a"
        assert await connections.greeting(tcp) == "b"
        assert await connections.ask(udp, b"x")
        async with httpx.AsyncClient(verify=_trusting(), trust_env=False) as http:
            url, extensions = f"https://127.0.0.1:{tls}/", {"sni_hostname": "web.example"}
            answer = await http.get(url, headers={"Host": "web.example"}, extensions=extensions)
        assert answer.json()["server"] == "web"
        status = edge.status("ListenerSet", "own")
        assert [item["attachedRoutes"] for item in status["listeners"]] == [1, 1, 1]


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _routes() -> list[dict[str, object]]:
    of_set = [{"kind": "ListenerSet", "name": "own"}]
    return [
        route("of-the-gateway", rule(to_service("cart"), path="/gateway")),
        route("of-the-set", rule(to_service("cart"), path="/set"), parents=of_set),
    ]
