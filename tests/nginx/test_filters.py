"""What rules change about requests and answers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import (
    Json,
    header,
    pool,
    redirect,
    request_headers,
    response_headers,
    rewrite,
    route,
    rule,
    service,
    to_pool,
    to_service,
)
from tests.nginx.servers import Backend, Request, exchange, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

HEADERS = [
    request_headers(
        set=[header("X-Set", 'a "b" \\ $host; # {c}'), header("User-Agent", "gateway")],
        add=[header("X-Add", "more"), header("X-New", "only")],
        remove=["X-Remove", "Accept-Encoding"],
    ),
    response_headers(
        set=[header("X-Out-Set", 'd "e" $uri'), header("Content-Type", "text/changed")],
        add=[header("X-Out-Add", "two"), header("Set-Cookie", "b=2")],
        remove=["X-Out-Remove"],
    ),
]


def _prefix(value: str) -> Json:
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}


def _full(value: str) -> Json:
    return {"type": "ReplaceFullPath", "replaceFullPath": value}


def _rules(kind: str) -> list[Json]:
    """The rules below /pool and those below /service."""
    to = {"pool": to_pool, "service": to_service}[kind]
    return [
        rule(to("backend"), path=f"/{kind}/headers", filters=HEADERS),
        rule(to("backend", filters=[request_headers(set=[header("X-Set", "of the backend")])]), path=f"/{kind}/inner"),
        rule(to("backend"), path=f"/{kind}/host", filters=[rewrite(hostname="inner.example")]),
        rule(to("backend"), path=f"/{kind}/full", filters=[rewrite(path=_full("/fixed/%20path"))]),
        rule(to("backend"), path=f"/{kind}/prefix", filters=[rewrite(path=_prefix("/new/base"))]),
        rule(to("backend"), path=f"/{kind}/strip", filters=[rewrite(path=_prefix("/"))]),
        rule(
            to("backend", filters=[rewrite(hostname="inner.example", path=_prefix("/own"))]),
            path=f"/{kind}/override",
            filters=[rewrite(hostname="outer.example", path=_full("/rule"))],
        ),
        rule(
            to("backend", filters=[rewrite(path=_prefix("/one"))], weight=1),
            to("backend", filters=[rewrite(path=_full("/two"))], weight=1),
            path=f"/{kind}/weighed",
        ),
        rule(
            to("backend"), path=f"/{kind}/both", filters=[rewrite(hostname="x.example", path=_prefix("/y")), *HEADERS]
        ),
    ]


REDIRECTS = {
    "scheme": redirect(scheme="https"),
    "host": redirect(hostname="other.example", statusCode=301),
    "port": redirect(port=8443),
    "all": redirect(scheme="https", hostname="other.example", port=443, path=_full("/login page".replace(" ", "%20"))),
    "prefix": redirect(hostname="other.example", path=_prefix("/base")),
    "strip": redirect(hostname="other.example", path=_prefix("/")),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(gateway: Gateway) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        sent = ("X-Out-Set: old", "X-Out-Add: one", "X-Out-Remove: gone", "Set-Cookie: a=1", "Content-Type: text/plain")
        writer.write(response(b"ok", *sent))

    async with serve(answer) as backend:
        await gateway.apply(
            "routes.yaml",
            pool("backend", backend.address),
            service("backend", backend.address),
            route("pool", *_rules("pool")),
            route("service", *_rules("service")),
            route("moved", *(rule(path=f"/moved/{name}", filters=[each]) for name, each in REDIRECTS.items())),
        )
        yield backend


both_kinds = pytest.mark.parametrize("kind", ["pool", "service"])


@both_kinds
async def test_request_headers_are_set_added_and_removed(http: httpx.AsyncClient, backend: Backend, kind: str) -> None:
    sent = [("X-Set", "old"), ("X-Add", "one"), ("X-Remove", "gone"), ("X-Remove", "twice"), ("X-Other", "kept")]
    answer = await http.post(f"/{kind}/headers", content=b"x", headers=sent)
    arrived = backend.requests[-1]
    assert answer.status_code == 200
    assert arrived.values("x-set") == ['a "b" \\ $host; # {c}']
    assert ",".join(arrived.values("x-add")).replace(" ", "") == "one,more"
    assert arrived.values("x-new") == ["only"]
    assert (arrived.values("x-remove"), arrived.values("accept-encoding")) == ([], [])
    assert (arrived.values("x-other"), arrived.values("user-agent")) == (["kept"], ["gateway"])


@both_kinds
async def test_header_is_added_where_the_client_sent_none(http: httpx.AsyncClient, backend: Backend, kind: str) -> None:
    await http.get(f"/{kind}/headers")
    assert backend.requests[-1].values("x-add") == ["more"]


@both_kinds
async def test_response_headers_are_set_added_and_removed(http: httpx.AsyncClient, backend: Backend, kind: str) -> None:
    answer = await http.get(f"/{kind}/headers")
    assert answer.headers.get_list("x-out-set") == ['d "e" $uri']
    assert answer.headers.get_list("content-type") == ["text/changed"]
    assert answer.headers.get_list("x-out-add") == ["one", "two"]
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x-out-remove" not in answer.headers
    assert len(answer.headers.get_list("x-request-id")) == 1


@both_kinds
async def test_filter_of_a_backend_applies_to_its_requests(
    http: httpx.AsyncClient, backend: Backend, kind: str
) -> None:
    await http.get(f"/{kind}/inner", headers={"X-Set": "old"})
    assert backend.requests[-1].values("x-set") == ["of the backend"]


@both_kinds
async def test_host_is_rewritten(http: httpx.AsyncClient, backend: Backend, kind: str) -> None:
    await http.get(f"/{kind}/host/a%20b?c", headers={"Host": "outer.example"})
    arrived = backend.requests[-1]
    assert (arrived.values("host"), arrived.target) == (["inner.example"], f"/{kind}/host/a%20b?c")
    assert arrived.values("x-forwarded-host") == ["outer.example"]


@both_kinds
@pytest.mark.parametrize(
    ("sent", "arrived"),
    [
        ("/full", "/fixed/%20path"),
        ("/full/a/b", "/fixed/%20path"),
        ("/full/a?b=%20c&d", "/fixed/%20path?b=%20c&d"),
        ("/full?", "/fixed/%20path"),
        ("/prefix", "/new/base"),
        ("/prefix/", "/new/base/"),
        ("/prefix/a", "/new/base/a"),
        ("/prefix?q=1", "/new/base?q=1"),
        ("/prefix/a%2Fb%20c;d/%C3%A4?e=%2F&f=?", "/new/base/a%2Fb%20c;d/%C3%A4?e=%2F&f=?"),
        ("/prefix/a//b/", "/new/base/a/b/"),
        ("/prefix/a/../b?c", "/new/base/b?c"),
        ("/prefix/./a/%2e%2e/b%20c", "/new/base/b%20c"),
        ("/prefix/a/../%3Fb%23c", "/new/base/%3Fb%23c"),
        ("/prefix/a/../100%25", "/new/base/100%25"),
        ("/prefix/x%0d%0aEvil:%20y", "/new/base/x%0d%0aEvil:%20y"),
        ("/prefix/a/../x%0d%0aEvil:%20y", "/new/base/x%0D%0AEvil:%20y"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip/a/b?c=d", "/a/b?c=d"),
        ("/strip?c=d", "/?c=d"),
        ("/strip//a", "/a"),
    ],
)
async def test_path_is_rewritten(gateway: Gateway, backend: Backend, kind: str, sent: str, arrived: str) -> None:
    raw = f"GET /{kind}{sent} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    answer = await exchange(gateway.port, raw)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert backend.requests[-1].target == arrived


@both_kinds
async def test_rewrite_of_a_backend_holds_over_that_of_its_rule(
    http: httpx.AsyncClient, backend: Backend, kind: str
) -> None:
    await http.get(f"/{kind}/override/a%20b?c", headers={"Host": "sent.example"})
    arrived = backend.requests[-1]
    assert (arrived.target, arrived.values("host")) == ("/own/a%20b?c", ["inner.example"])


@both_kinds
async def test_rewrite_of_a_backend_fits_the_backend_drawn(
    http: httpx.AsyncClient, backend: Backend, kind: str
) -> None:
    backend.requests.clear()
    for _ in range(40):
        await http.get(f"/{kind}/weighed/x")
    assert {request.target for request in backend.requests} == {"/one/x", "/two"}


@both_kinds
@pytest.mark.parametrize("written", ["/{}/%70refix/a%2Fb?c", "/./{}/prefix/x/../a%2fb?c", "/%{:02x}{}/prefix/a/b?c"])
async def test_prefix_is_rewritten_however_it_is_written(
    gateway: Gateway, backend: Backend, kind: str, written: str
) -> None:
    path = written.format(kind) if written.count("{") == 1 else written.format(ord(kind[0]), kind[1:])
    answer = await exchange(gateway.port, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    arrived = backend.requests[-1].target
    assert arrived.startswith("/new/base/a")
    assert arrived.endswith("b?c")


@both_kinds
async def test_rewrite_keeps_method_and_body(http: httpx.AsyncClient, backend: Backend, kind: str) -> None:
    body = bytes(range(256)) * 2000
    answer = await http.put(f"/{kind}/both/a%20b?c", content=body, headers={"X-Remove": "gone"})
    arrived = backend.requests[-1]
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/changed")
    assert (arrived.method, arrived.target, arrived.body) == ("PUT", "/y/a%20b?c", body)
    assert (arrived.values("host"), arrived.values("x-remove")) == (["x.example"], [])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("sent", "status", "location"),
    [
        ("/moved/scheme/a?b=c", 302, "https://old.example/moved/scheme/a?b=c"),
        ("/moved/host/a%20b?c=%2F", 301, "http://other.example:{port}/moved/host/a%20b?c=%2F"),
        ("/moved/port/x", 302, "http://old.example:8443/moved/port/x"),
        ("/moved/all/x?y=z", 302, "https://other.example/login%20page?y=z"),
        ("/moved/prefix/a%2Fb?c", 302, "http://other.example:{port}/base/a%2Fb?c"),
        ("/moved/prefix", 302, "http://other.example:{port}/base"),
        ("/moved/prefix/a/../b", 302, "http://other.example:{port}/base/b"),
        ("/moved/strip", 302, "http://other.example:{port}/"),
        ("/moved/strip/a", 302, "http://other.example:{port}/a"),
        ("/moved/host//evil.example/", 301, "http://other.example:{port}/moved/host//evil.example/"),
    ],
)
async def test_request_is_redirected(gateway: Gateway, sent: str, status: int, location: str) -> None:
    raw = f"GET {sent} HTTP/1.1\r\nHost: old.example\r\nConnection: close\r\n\r\n".encode()
    head = (await exchange(gateway.port, raw)).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers: dict[str, Any] = dict(line.lower().split(": ", 1) for line in head[1:])
    assert head[0].split(" ")[1] == str(status)
    assert headers["location"] == location.format(port=gateway.port).lower()


async def test_redirect_of_a_backend_is_for_its_share(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    away = {"hostname": "away.example", "statusCode": 301, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}
    secure = {"scheme": "https", "hostname": "secure.example", "port": 443}
    divided = rule(
        to_service("backend"),
        to_service("backend", filters=[redirect(**away)]),
        to_pool("backend", filters=[redirect(**secure), response_headers(set=[header("X-Out", "b")])]),
        path="/divided",
    )
    await gateway.apply("divided.yaml", route("divided", divided))
    backend.requests.clear()
    answers = [await http.post("/divided/a?b=c", content=b"x") for _ in range(90)]
    told = Counter((one.status_code, one.headers.get("location"), one.headers.get("x-out")) for one in answers)
    assert set(told) == {
        (200, None, None),
        (301, f"http://away.example:{gateway.port}/x?b=c", None),
        (302, "https://secure.example/divided/a?b=c", "b"),
    }
    assert len(backend.requests) == told[200, None, None]


@pytest.mark.usefixtures("backend")
async def test_redirect_that_needs_a_host_is_400_without_one(gateway: Gateway) -> None:
    answer = await exchange(gateway.port, b"GET /moved/scheme/cart HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"names no host" in answer
    assert b"location:" not in answer.lower()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("line", "location"),
    [
        ("GET /moved/host/cart HTTP/1.0", b"http://other.example"),
        ("GET http://asked.example/moved/scheme/cart HTTP/1.0", b"https://asked.example/"),
        ("GET /moved/scheme/cart HTTP/1.0\r\nHost: asked.example", b"https://asked.example/"),
    ],
)
async def test_redirect_of_http_1_0_that_knows_a_host_is_told(gateway: Gateway, line: str, location: bytes) -> None:
    answer = await exchange(gateway.port, f"{line}\r\n\r\n".encode())
    assert b"\r\nLocation: " + location in answer


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "path", ["/moved/prefix/x%0d%0aEvil:%20y", "/moved/prefix/a/../x%0d%0aEvil:%20y", "/moved/host/%0aEvil:y"]
)
async def test_redirect_is_split_by_no_path(gateway: Gateway, path: str) -> None:
    answer = await exchange(gateway.port, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 30")
    assert b"\nEvil" not in answer
