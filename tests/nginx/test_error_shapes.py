"""Errors made on the way have the shape of the API that was asked."""

import asyncio
import json

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway
from tests.nginx.resources import Json, pool, route, rule, to_pool, to_service
from tests.nginx.servers import connect, nobody

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/messages?beta=true")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def routes(gateway: Gateway) -> None:
    with nobody() as dead:
        await gateway.apply(
            "routes.yaml",
            pool("empty"),
            pool("dead", dead),
            route(
                "all",
                rule(to_pool("empty"), path="/empty"),
                rule(to_pool("dead"), path="/dead"),
                rule(path="/nothing"),
                rule(to_service("missing"), path="/missing"),
            ),
        )


def _type(path: str, body: Json) -> str:
    """The type of an error, whose shape must be that of the path's API."""
    error = body["error"]
    if "messages" in path:
        assert (set(body), body["type"], set(error)) == ({"type", "error"}, "error", {"type", "message"})
    else:
        assert (set(body), set(error)) == ({"error"}, {"message", "type", "param", "code"})
    assert error["message"]
    return str(error["type"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("before", "status", "openai", "anthropic"),
    [
        ("", 404, "invalid_request_error", "not_found_error"),
        ("/empty", 503, "server_error", "overloaded_error"),
        ("/dead", 502, "server_error", "api_error"),
        ("/nothing", 500, "server_error", "api_error"),
        ("/missing", 500, "server_error", "api_error"),
    ],
)
async def test_error_has_the_shape_of_the_api(
    http: httpx.AsyncClient, path: str, before: str, status: int, openai: str, anthropic: str
) -> None:
    answer = await http.post(before + path, content=b"{}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert _type(path, answer.json()) == (anthropic if "messages" in path else openai)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("request_lines", "status"),
    [
        ("POST {path} HTTP/1.1\r\nHost: a\r\nBad Header: x\r\nContent-Length: x\r\n\r\n", 400),
        ("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("POST {path} HTTP/1.1\r\n\r\n", 400),
        ("POST {path} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n", 431),
        ("POST /empty{path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n", 400),
        ("TRACE {path} HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ],
)
async def test_request_that_nginx_refuses_is_told_so_in_json(
    gateway: Gateway, path: str, request_lines: str, status: int
) -> None:
    async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
        writer.write(request_lines.format(path=path, long="x" * 40_000).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
        body = json.loads(await reader.readexactly(length))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert _type(path, body) == "invalid_request_error"


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("nonsense", 400, "invalid_request"),
        *(
            (f"GET {target} HTTP/1.1", 400, "invalid_request")
            for target in ("/s%00", "/s/%zz", "/s/../../x", "%00", "/s/\xff%00")
        ),
        ("GET /" + "x" * 40_000 + " HTTP/1.1", 414, "url_too_long"),
        ("GET /s HTTP/2.0", 505, "http_version_not_supported"),
        ("CONNECT a:80 HTTP/1.1", 405, "method_not_allowed"),
    ],
)
async def test_request_line_that_nginx_cannot_read_is_told_in_json(
    gateway: Gateway, line: str, status: int, code: str
) -> None:
    async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
        writer.write(f"{line}\r\nHost: a\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["code"] == code


@pytest.mark.parametrize("path", ["/./refused", "/%2e/refused", "//./refused", "/.%2frefused"])
async def test_place_of_refused_requests_is_no_path_of_a_client(gateway: Gateway, path: str) -> None:
    async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["error"]["code"] == "route_not_found"
