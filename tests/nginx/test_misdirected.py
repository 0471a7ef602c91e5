"""Requests on a connection of TLS that was opened for another host."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.certificates import certificate
from tests.nginx.gateway import Gateway, run_gateway
from tests.nginx.resources import Json, listener, route, rule, secret, service, to_service
from tests.nginx.servers import exchange, serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

LISTENERS = {
    "any": None,
    "second": "second.example",
    "wild": "*.wild.example",
    "fourth": "fourth.wild.example",
}


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_ports(1)[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, tls_port: int) -> AsyncIterator[Gateway]:
    chain, key = certificate("*.example")

    def listeners(port: int) -> list[Json]:
        secure = [
            listener(tls_port, name=name, hostname=hostname, certificate="all") for name, hostname in LISTENERS.items()
        ]
        return [listener(port), *secure]

    async with AsyncExitStack() as stack:
        backends = {name: await stack.enter_async_context(serve(name=name)) for name in LISTENERS}
        gateway = await stack.enter_async_context(run_gateway(root, nginx, listeners=listeners))
        await gateway.apply(
            "routes.yaml",
            secret("all", chain=chain, key=key),
            *(service(name, backends[name].address) for name in LISTENERS),
            route("any", rule(to_service("any")), section="any", hostnames=["first.example"]),
            *(route(name, rule(to_service(name)), section=name) for name, host in LISTENERS.items() if host),
        )
        yield gateway


FACTS: list[tuple[str, str, int | str]] = [
    ("first.example", "first.example", "any"),
    ("first.example", "second.example", 421),
    ("first.example", "unknown.example", 404),
    ("second.example", "second.example", "second"),
    ("second.example", "first.example", 421),
    ("second.example", "unknown.example", 421),
    ("third.wild.example", "third.wild.example", "wild"),
    ("third.wild.example", "fifth.wild.example", "wild"),
    ("third.wild.example", "fourth.wild.example", 421),
    ("third.wild.example", "second.example", 421),
    ("fourth.wild.example", "fourth.wild.example", "fourth"),
    ("fourth.wild.example", "fifth.wild.example", 421),
    ("unknown.example", "first.example", "any"),
    ("unknown.example", "unknown.example", 404),
    ("SECOND.example", "second.EXAMPLE", "second"),
]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize(("name", "host", "expected"), FACTS)
async def test_request_is_served_by_the_listener_of_its_connection(
    tls_port: int, name: str, host: str, expected: int | str, http2: bool
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=context, trust_env=False, http2=http2, http1=not http2) as http:
        answer = await http.get(
            f"https://127.0.0.1:{tls_port}/", headers={"Host": host}, extensions={"sni_hostname": name}
        )
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["server"] if answer.status_code == 200 else answer.status_code) == expected


async def test_request_in_plain_text_is_told_in_json(gateway: Gateway, tls_port: int) -> None:
    answer = await exchange(tls_port, b"GET / HTTP/1.1\r\nHost: first.example\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "invalid_request"
