"""Requests to listeners of ListenerSets, of their Gateway, and from one to the other."""

import ssl
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import Nginx
from tests.nginx.certificates import certificate
from tests.nginx.gateway import free_ports, run_gateway
from tests.nginx.resources import gateway, listener, listener_set, route, rule, secret, service, to_service
from tests.nginx.servers import serve

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
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with serve(name="cart") as cart, run_gateway(root / "secure", nginx) as edge:
        secure = [listener(port, name="tls", hostname=f"{name}.example", certificate="all") for name in ("edge", "own")]
        await edge.apply("routes.yaml", service("cart", cart.address), *_routes(), secret("all", chain=chain, key=key))
        await edge.apply("gateway.yaml", gateway(listener(edge.port), secure[0], allowedListeners=OPEN))
        await edge.apply("set.yaml", listener_set("own", secure[1]))

        async def answer(name: str, host: str) -> int:
            url, extensions = f"https://127.0.0.1:{port}/set", {"sni_hostname": name}
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                return (await http.get(url, headers={"Host": host}, extensions=extensions)).status_code

        assert await answer("own.example", "own.example") == 200
        assert await answer("edge.example", "own.example") == 421


def _routes() -> list[dict[str, object]]:
    of_set = [{"kind": "ListenerSet", "name": "own"}]
    return [
        route("of-the-gateway", rule(to_service("cart"), path="/gateway")),
        route("of-the-set", rule(to_service("cart"), path="/set"), parents=of_set),
    ]
