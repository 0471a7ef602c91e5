"""Neither a client nor a model server steers the gateway."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.headers import STEERING_HEADERS
from tests.nginx.gateway import Gateway
from tests.nginx.resources import header, pool, request_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, exchange, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

PATHS = ("/picked", "/changed", "/service")

EVIL: tuple[str, ...] = ()
"""Headers that the pod answers with."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pods(gateway: Gateway) -> AsyncIterator[tuple[Backend, Backend]]:
    """The pod behind all paths, and another that no path leads to."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        evil = [f"{name}: {value}" for name, value in request.headers if name.startswith("evil-")]
        writer.write(response(b"from the pod", *(line.removeprefix("evil-") for line in evil)))

    async with serve(answer) as pod, serve() as secret:
        filters = [request_headers(set=[header("X-Set", "yes")])]
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address),
            pool("secret", secret.address),
            service("cpu", pod.address),
            route(
                "all",
                rule(to_pool("gpu"), path="/picked"),
                rule(to_pool("gpu"), path="/changed", filters=filters),
                rule(to_service("cpu"), path="/service"),
            ),
            # Nobody asks for this host.
            route("secret", rule(to_pool("secret")), hostnames=["secret.example"]),
        )
        yield pod, secret


def _values(pods: tuple[Backend, Backend]) -> dict[str, str]:
    """A value for each steering header that would mean something."""
    meant = {
        "x-infergate-pool": "default/secret",
        "x-infergate-then": "@infergate_unavailable",
        "x-infergate-tried": f"{pods[0].address}=502/-;",
        "x-infergate-request": "0" * 32,
    }
    return {name: meant.get(name, pods[1].address) for name in STEERING_HEADERS}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("spelling", ["lower", "upper", "title"])
async def test_steering_headers_of_clients_change_nothing_and_end_at_the_gateway(
    http: httpx.AsyncClient, pods: tuple[Backend, Backend], path: str, spelling: str
) -> None:
    pod, secret = pods
    sent = [(getattr(name, spelling)(), value) for name, value in _values(pods).items()]
    answer = await http.post(path, content=b"x", headers=sent)
    assert (answer.status_code, answer.text) == (200, "from the pod")
    assert [name for name, _ in pod.requests[-1].headers if name in STEERING_HEADERS] == []
    assert secret.requests == []


@pytest.mark.parametrize("path", PATHS)
async def test_repeated_steering_headers_change_nothing(
    http: httpx.AsyncClient, pods: tuple[Backend, Backend], path: str
) -> None:
    pod, secret = pods
    values = _values(pods)
    sent = [(name, value) for name in values for value in ("", values[name], values[name], "other")]
    answer = await http.post(path, content=b"x", headers=sent)
    assert (answer.status_code, answer.text) == (200, "from the pod")
    assert [name for name, _ in pod.requests[-1].headers if name in STEERING_HEADERS] == []
    assert secret.requests == []


@pytest.mark.parametrize("name", ["x_infergate_pool", "X-Infergate_Pool", "x-infergate-pool ", "x-infergate.pool"])
async def test_odd_spellings_of_steering_headers_change_nothing(
    gateway: Gateway, pods: tuple[Backend, Backend], name: str
) -> None:
    sent = f"GET /picked HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{name}: default/secret\r\n\r\n"
    answer = await exchange(gateway.port, sent.encode())
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
    assert pods[1].requests == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Accel-Redirect", "@infergate_unavailable"),
        ("X-Accel-Redirect", "/picked"),
        ("X-Accel-Buffering", "yes"),
        ("X-Accel-Limit-Rate", "1"),
        ("X-Accel-Charset", "koi8-r"),
        ("X-Accel-Expires", "3600"),
        ("X-Infergate-First-Byte", "9"),
        ("X-Infergate-Pick", "9"),
        *((name.title(), "anything") for name in STEERING_HEADERS),
    ],
)
async def test_steering_headers_of_model_servers_do_nothing_and_end_at_the_gateway(
    http: httpx.AsyncClient, pods: tuple[Backend, Backend], path: str, name: str, value: str
) -> None:
    answer = await http.post(path, content=b"x", headers={f"Evil-{name}": value})
    assert (answer.status_code, answer.text) == (200, "from the pod")
    assert name.lower() not in answer.headers
    assert pods[0].requests[-1].values(f"evil-{name.lower()}") == [value]


async def test_upgrade_to_h2c_is_not_passed_on(gateway: Gateway, pods: tuple[Backend, Backend]) -> None:
    for path in PATHS:
        sent = (
            f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        )
        async with asyncio.timeout(15):
            answer = await exchange(gateway.port, sent.encode())
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert pods[0].requests[-1].values("upgrade") == []
        assert "upgrade" not in " ".join(pods[0].requests[-1].values("connection")).lower()


_SMUGGLED = b"GET /service HTTP/1.1\r\nHost: smuggled\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \x0bchunked",
    ],
)
@pytest.mark.parametrize("path", ["/picked", "/service"])
async def test_message_of_two_lengths_is_refused(
    gateway: Gateway, pods: tuple[Backend, Backend], path: str, framing: str
) -> None:
    before = len(pods[0].requests)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n".encode()
    answer = await exchange(gateway.port, head + _SMUGGLED)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert len(pods[0].requests) == before


async def test_host_that_is_no_host_is_refused(gateway: Gateway, pods: tuple[Backend, Backend]) -> None:
    before = len(pods[0].requests)
    for host in ("a/b", "a b", "a\0", "..", ""):
        answer = await exchange(
            gateway.port, f"GET /picked HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 400 ") or (host == "" and b" 200 " in answer[:20])
    assert len(pods[0].requests) <= before + 1
