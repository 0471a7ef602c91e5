"""Which rule a request meets, by host, path, method, headers and query."""

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
from tests.nginx.gateway import Gateway, Run
from tests.nginx.resources import Json, listener, pool, redirect, route, rule, secret, service, to_pool, to_service
from tests.nginx.servers import exchange, serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("exact", "prefix", "deeper", "post", "gold", "beta", "pattern", "digits", "root", "own", "wildcard", "inner")


def _match(path: str, kind: str = "PathPrefix", **more: object) -> Json:
    return {"path": {"type": kind, "value": path}, **more}


def _header(name: str, value: str, kind: str = "Exact") -> list[Json]:
    return [{"type": kind, "name": name, "value": value}]


HOST = "models.example"
ROUTES = [
    route(
        "all",
        rule(to_service("exact"), matches=[_match("/v1/models", "Exact"), _match("/slash/", "Exact")]),
        rule(to_pool("prefix"), matches=[_match("/v1")]),
        rule(to_service("deeper"), matches=[_match("/v1/chat/completions")]),
        rule(to_pool("post"), matches=[_match("/v1", method="POST")]),
        rule(
            to_pool("gold"),
            matches=[_match("/v1", headers=_header("X-Tier", 'gold, but: "quoted" $x')), _match("/gold")],
        ),
        rule(to_service("beta"), matches=[_match("/v1", queryParams=[{"name": "beta", "value": "a b"}])]),
        rule(
            to_service("pattern"),
            matches=[_match("/v1", headers=_header("X-Model", "llama-[0-9]+b", "RegularExpression"))],
        ),
        rule(to_service("digits"), matches=[_match("/r/[0-9]+/[^/]*", "RegularExpression")]),
        rule(matches=[_match("/v1", headers=_header("X-Old", "yes"))], filters=[redirect(hostname="new.example")]),
        hostnames=[HOST],
    ),
    route("own", rule(to_service("own")), hostnames=["a.wild.example"]),
    route("wildcard", rule(to_pool("wildcard"), path="/w"), hostnames=["*.wild.example"]),
    route("inner", rule(to_service("inner")), hostnames=["*.inner.wild.example"]),
]


CERTIFICATES = {name: certificate(name) for name in ("one.example", "*.two.example")}


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_ports(1)[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, tls_port: int, run: Run) -> AsyncIterator[Gateway]:
    def listeners(port: int) -> list[Json]:
        return [
            listener(port),
            listener(tls_port, name="one", hostname="one.example", certificate="one"),
            listener(tls_port, name="two", hostname="*.two.example", certificate="two"),
        ]

    async with AsyncExitStack() as stack:
        backends = {name: await stack.enter_async_context(serve(name=name)) for name in NAMES}
        gateway = await stack.enter_async_context(run(root, nginx, listeners=listeners))
        one, two = (
            secret(name, chain=chain, key=key)
            for name, (chain, key) in zip(("one", "two"), CERTIFICATES.values(), strict=True)
        )
        await gateway.apply(
            "routes.yaml",
            one,
            two,
            *(pool(name, backends[name].address) for name in NAMES),
            *(service(name, backends[name].address) for name in NAMES),
            *ROUTES,
            route("one", rule(to_pool("own")), section="one"),
            route("two", rule(to_service("root")), section="two", hostnames=["a.two.example"]),
        )
        yield gateway


FACTS: list[tuple[str, str, dict[str, str], str]] = [
    ("GET", "/v1/models", {}, "exact"),
    ("GET", "/v1/models/", {}, "prefix"),
    ("GET", "/v1/models?x=/v1", {}, "exact"),
    ("POST", "/v1/models", {}, "exact"),
    ("GET", "/slash/", {}, "exact"),
    ("GET", "/v1", {}, "prefix"),
    ("GET", "/v1/", {}, "prefix"),
    ("GET", "/v1/x/y", {}, "prefix"),
    ("GET", "/%76%31/x", {}, "prefix"),
    ("GET", "/a/../v1/x", {}, "prefix"),
    ("GET", "//v1//x", {}, "prefix"),
    ("GET", "//v1/models", {}, "exact"),
    ("GET", "/v1//models", {}, "exact"),
    ("GET", "/v1/chat/completions", {}, "deeper"),
    ("POST", "/v1/chat/completions/x", {}, "deeper"),
    ("GET", "/v1/chat/completionsx", {}, "prefix"),
    ("POST", "/v1/x", {}, "post"),
    ("GET", "/v1/x", {"X-Tier": 'gold, but: "quoted" $x'}, "gold"),
    ("GET", "/v1/x", {"x-tier": 'gold, but: "quoted" $x'}, "gold"),
    ("GET", "/v1/x", {"X-Tier": "gold"}, "prefix"),
    ("POST", "/v1/x", {"X-Tier": 'gold, but: "quoted" $x'}, "post"),
    ("GET", "/gold", {}, "gold"),
    ("GET", "/v1/x?beta=a+b", {}, "beta"),
    ("GET", "/v1/x?a=1&beta=a%20b&beta=c", {}, "beta"),
    ("GET", "/v1/x?beta=c&beta=a+b", {}, "prefix"),
    ("GET", "/v1/x?Beta=a+b", {}, "prefix"),
    ("GET", "/v1/x?abeta=a+b", {}, "prefix"),
    ("GET", "/v1/x", {"X-Model": "llama-70b"}, "pattern"),
    ("GET", "/v1/x", {"X-Model": "llama-70b-chat"}, "prefix"),
    ("GET", "/v1/x", {"X-Model": "my-llama-70b"}, "prefix"),
    ("GET", "/r/12/x", {}, "digits"),
    ("DELETE", "/r/12/", {}, "digits"),
]


@pytest.mark.parametrize(("method", "path", "headers", "served"), FACTS)
async def test_request_meets_its_rule(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], served: str
) -> None:
    lines = [f"{name}: {value}" for name, value in {"Host": HOST, "Connection": "close", **headers}.items()]
    answer = await exchange(gateway.port, "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["server"] == served


async def test_backend_gets_repeated_slashes_as_they_came(gateway: Gateway) -> None:
    request = f"GET //v1//models HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    _, _, body = (await exchange(gateway.port, request.encode())).partition(b"\r\n\r\n")
    assert json.loads(body)["target"] == "//v1//models"


@pytest.mark.parametrize(
    "path",
    ["/", "/v", "/v11", "/v1x", "/V1/x", "/r/12", "/r/x/y", "/a/r/12/x", "/golden", "/v1/../x", "/slash", "/slash/x"],
)
async def test_path_without_a_rule_is_404_in_json(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers={"Host": HOST})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json()["error"]["code"] == "route_not_found"


async def test_pool_service_and_redirect_share_a_path(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/x?y=z", headers={"Host": HOST, "X-Old": "yes"})
    assert (answer.status_code, httpx.URL(answer.headers["location"]).host) == (302, "new.example")


@pytest.mark.parametrize(
    ("host", "path", "served"),
    [
        ("a.wild.example", "/", "own"),
        ("A.Wild.Example", "/", "own"),
        ("a.wild.example:1234", "/x", "own"),
        ("a.wild.example", "/w/x", "own"),
        ("b.wild.example", "/w", "wildcard"),
        ("c.b.wild.example", "/w", "wildcard"),
        ("x.inner.wild.example", "/", "inner"),
        ("x.y.inner.wild.example", "/w", "inner"),
        ("inner.wild.example", "/w", "wildcard"),
    ],
)
async def test_host_decides_before_the_path(http: httpx.AsyncClient, host: str, path: str, served: str) -> None:
    answer = await http.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json().get("server")) == (200, served)


@pytest.mark.parametrize("host", ["wild.example", "b.wild.example", "other.example", "127.0.0.1", "xmodels.example"])
async def test_host_without_a_route_is_404_in_json(http: httpx.AsyncClient, host: str) -> None:
    answer = await http.get("/v1x", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")


def _trusting(*names: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata="".join(CERTIFICATES[name][0].decode() for name in names))


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize(
    ("host", "certificate", "served"),
    [("one.example", "one.example", "own"), ("a.two.example", "*.two.example", "root")],
)
async def test_https_listener_shows_the_certificate_of_its_host(
    gateway: Gateway, tls_port: int, host: str, certificate: str, served: str, http2: bool
) -> None:
    context = _trusting(certificate)
    async with httpx.AsyncClient(verify=context, trust_env=False, http2=http2, http1=not http2) as http:
        answer = await http.get(
            f"https://127.0.0.1:{tls_port}/x", headers={"Host": host}, extensions={"sni_hostname": host}
        )
    assert (answer.status_code, answer.json()["server"]) == (200, served)
    shown = {name: value for name, value in answer.json()["headers"] if name.startswith("x-forwarded")}
    assert shown["x-forwarded-proto"] == "https"


async def test_host_of_an_https_listener_without_a_route_is_404(gateway: Gateway, tls_port: int) -> None:
    async with httpx.AsyncClient(verify=_trusting("*.two.example"), trust_env=False) as http:
        name = "b.two.example"
        answer = await http.get(
            f"https://127.0.0.1:{tls_port}/x", headers={"Host": name}, extensions={"sni_hostname": name}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")


async def test_name_that_no_listener_has_gets_no_certificate(gateway: Gateway, tls_port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=context, trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"https://127.0.0.1:{tls_port}/x", extensions={"sni_hostname": "three.example"})


async def test_head_without_a_rule_is_404_without_a_body_of_json(http: httpx.AsyncClient) -> None:
    answer = await http.head("/nowhere")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (404, "text/plain", b"")


@pytest.mark.parametrize(
    ("target", "host", "told"),
    [
        (f"http://{HOST}/v1/x", "other.example", HOST),
        (f"HTTP://{HOST}/v1/x", HOST, HOST),
        (f"http://{HOST}:PORT/v1/x", "other.example", f"{HOST}:PORT"),
        ("/v1/x", f"{HOST}:1234", f"{HOST}:1234"),
    ],
)
async def test_host_of_an_absolute_target_comes_before_the_header(
    gateway: Gateway, target: str, host: str, told: str
) -> None:
    target, told = (text.replace("PORT", str(gateway.port)) for text in (target, told))
    answer = await exchange(
        gateway.port, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    headers = [tuple(header) for header in json.loads(body)["headers"]]
    assert [value for name, value in headers if name in ("host", "x-forwarded-host")] == [told, told]
