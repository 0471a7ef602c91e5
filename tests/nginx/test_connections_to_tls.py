"""Connections whose TLS ends at the gateway, to backends that are spoken to in TLS again."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controller.agent.nginx import Nginx
from tests.nginx.certificates import Authority
from tests.nginx.connections import greeting, listener, stream_route, talk
from tests.nginx.gateway import run_gateway
from tests.nginx.resources import Json, authorities, gateway, secret, service, tls_policy, to_service
from tests.nginx.resources import listener as http_listener
from tests.nginx.servers import server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx]

OURS, OTHER = Authority("ours"), Authority("other")
NAME = "backend.example"


async def _greetings(
    root: Path, nginx: Nginx, *policies: Json, clients: bytes | None = None, shows: Json | None = None
) -> dict[str, str]:
    """Who greets on a listener that ends TLS, one that passes it on, and one of TCP, with a backend that speaks TLS."""
    ports = dict(zip(("ends", "passes", "raw"), free_ports(3), strict=True))
    names = {"ends": "a.example", "passes": "a.example", "raw": None}
    chain, key = OURS.certificate("a.example")

    def listeners(port: int) -> list[Json]:
        ends = {"mode": "Terminate", "certificateRefs": [{"name": "a"}]}
        return [
            http_listener(port),
            listener("ends", ports["ends"], "TLS", tls=ends),
            listener("passes", ports["passes"], "TLS", tls={"mode": "Passthrough"}),
            listener("raw", ports["raw"], "TCP"),
        ]

    async with AsyncExitStack() as stack:
        context = server_tls(*OURS.certificate(NAME), clients=clients)
        backend = await stack.enter_async_context(talk("secure", tls=context))
        plain = await stack.enter_async_context(talk("plain"))
        made = await stack.enter_async_context(run_gateway(root, nginx, listeners=listeners))
        if shows is not None:
            made.write("gateway.yaml", gateway(*listeners(made.port), tls={"backend": shows}))
        await made.apply(
            "resources.yaml",
            secret("a", chain=chain, key=key),
            authorities("ca", OURS.chain),
            authorities("other", OTHER.chain),
            service("cart", backend.address),
            service("plain", plain.address),
            stream_route("TLSRoute", "ends", to_service("cart"), section="ends", hostnames=("a.example",)),
            stream_route("TLSRoute", "passes", to_service("cart"), section="passes", hostnames=("a.example",)),
            stream_route("TCPRoute", "raw", to_service("plain"), section="raw"),
            *policies,
        )
        return {name: await greeting(ports[name], name=names[name]) for name in ports}


async def test_backend_with_a_policy_is_spoken_to_in_tls_again(tmp_path: Path, nginx: Nginx) -> None:
    found = await _greetings(tmp_path, nginx, tls_policy("cart"), tls_policy("plain"))
    assert found == {"ends": "secure", "passes": "secure", "raw": "plain"}


@pytest.mark.parametrize(
    "policy",
    [
        tls_policy("cart", hostname="other.example"),
        tls_policy("cart", authorities=["other"]),
        tls_policy("cart", authorities=["missing"]),
    ],
    ids=["other-name", "other-authority", "missing-authority"],
)
async def test_backend_that_is_not_known_gets_nothing(tmp_path: Path, nginx: Nginx, policy: Json) -> None:
    found = await _greetings(tmp_path, nginx, policy)
    assert (found["ends"], found["passes"]) == ("", "secure")


async def test_backend_sees_the_certificate_of_the_gateway(tmp_path: Path, nginx: Nginx) -> None:
    own, key = OTHER.certificate("gateway.example")
    found = await _greetings(
        tmp_path,
        nginx,
        tls_policy("cart"),
        secret("own", chain=own, key=key),
        clients=OTHER.chain,
        shows={"clientCertificateRef": {"name": "own"}},
    )
    assert found["ends"] == "secure"
