"""One line of JSON for each request."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, client_of, eventually, until
from tests.nginx.resources import Json, pool, redirect, route, rule, service, to_pool, to_service
from tests.nginx.servers import Backend, Request, connect, exchange, nobody, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

NUMBERS = {"status", "tries", "total_seconds", "request_bytes", "response_bytes"}
NUMBERS_OR_NULL = {"pick_seconds", "first_byte_seconds", "prompt_tokens", "cached_tokens", "completion_tokens"}


@pytest.fixture(scope="module")
def dead() -> Iterator[str]:
    with nobody() as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway, dead: str) -> AsyncIterator[Backend]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"x" * 1000))

    async def alert(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x15\x03\x03\x00\x02\x02\x0a")
        await writer.drain()
        writer.close()

    async with serve(answer) as pod, serve(alert) as secure:
        await gateway.apply(
            "routes.yaml",
            pool("gpu", pod.address, mode="FailOpen"),
            pool("secure", secure.address),
            service("secured", secure.address),
            pool("dead", dead),
            pool("empty"),
            service("cpu", pod.address),
            route(
                "shop",
                rule(to_service("cpu"), path="/service"),
                rule(to_pool("gpu"), path="/picked"),
                rule(to_pool("secure"), path="/secure"),
                rule(to_service("secured"), path="/secured"),
                rule(to_pool("dead"), path="/dead"),
                rule(to_pool("empty"), path="/empty"),
                rule(path="/moved", filters=[redirect(hostname="b.example")]),
                rule(to_service("missing"), path="/missing"),
            ),
        )
        yield pod


def _check(line: Json) -> None:
    """Numbers are numbers, everything else is text."""
    for name, value in line.items():
        if name in NUMBERS:
            assert isinstance(value, int | float), name
        elif name in NUMBERS_OR_NULL:
            assert value is None or isinstance(value, int | float), name
        else:
            assert isinstance(value, str), name


async def test_line_of_a_picked_request_tells_its_way(gateway: Gateway, http: httpx.AsyncClient, pod: Backend) -> None:
    answer = await http.post("/picked/v1?secret=1", content=b"y" * 5000, headers={"User-Agent": "me"})
    line = await gateway.logged(answer.headers["x-request-id"])
    _check(line)
    told = {name: line[name] for name in ("method", "host", "path", "route", "pool", "endpoint", "mode")}
    assert told == {
        "method": "POST",
        "host": "127.0.0.1",
        "path": "/picked/v1",
        "route": "default/shop",
        "pool": "default/gpu",
        "endpoint": pod.address,
        "mode": gateway.mode,
    }
    assert (line["status"], line["tries"], str(line["rule"])) == (200, 1, "1")
    assert 0 <= line["pick_seconds"] <= line["first_byte_seconds"] <= line["total_seconds"] < 10
    assert line["request_bytes"] > 5000
    assert 1000 < line["response_bytes"] < 2000


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    ("path", "status", "known"),
    [
        ("/service", 200, {"route": "default/shop", "pool": "", "tries": 1, "pick_seconds": None}),
        ("/dead", 502, {"pool": "default/dead", "tries": 1}),
        ("/empty", 503, {"pool": "default/empty", "tries": 0, "endpoint": "", "pick_seconds": None}),
        ("/moved", 302, {"route": "default/shop", "pool": "", "tries": 0, "endpoint": ""}),
        ("/missing", 500, {"route": "default/shop", "tries": 0, "endpoint": ""}),
        ("/nothing", 404, {"route": "", "rule": "", "tries": 0, "endpoint": ""}),
    ],
)
async def test_line_is_complete_however_a_request_ends(
    gateway: Gateway, http: httpx.AsyncClient, path: str, status: int, known: dict[str, object]
) -> None:
    answer = await http.get(path)
    line = await gateway.logged(answer.headers["x-request-id"])
    _check(line)
    assert line["status"] == answer.status_code == status
    assert {name: line[name] for name in known} == known


HOSTILE = {
    "quotes": (b'/picked/"}{"a":"b', b"a"),
    "backslashes": (b"/picked/\\\\%5c%22%00%0a%0d%1f", b"a"),
    "escapes": (b"/picked/%22%2c%22x%22%3a1", b"a"),
    "lines": (b"/picked/%0a{}%0d%0a", b"a"),
    "raw-bytes": (b"/picked/\xff\xfe", b"a"),
    "encoded-bytes": (b"/picked/%ff%fe%c0%80%ed%a0%80", b"a"),
    "cut-off-utf8": (b"/picked/%e2%82", b"a"),
    "separators": ("/picked/\u2028\u2029\u0085".encode(), b"a"),
    "encoded-unicode": (b"/picked/%e2%82%ac%f0%9f%98%80", b"a"),
    "host-of-bytes": (b"/picked/", b"caf\xe9.example"),
    "host-of-quotes": (b"/picked/", b'a"b\\c'),
    "service-bytes": (b"/service/%ff\xfe", b"a"),
    "long": (b"/picked/" + b"%22" * 5000, b"a"),
}


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("case", HOSTILE)
async def test_line_of_a_hostile_request_is_json(gateway: Gateway, case: str) -> None:
    path, host = HOSTILE[case]
    evil = b'User-Agent: "\\\x01\xff{}\r\nReferer: \xff"\r\nAuthorization: Bearer "\r\nCookie: "\\\r\n'
    before = len(gateway.log_lines())
    await exchange(gateway.port, b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n" % (path, host, evil))
    await until(lambda: len(gateway.log_lines()) > before)
    for line in gateway.log_lines()[before:]:
        # Decoded here, because what is not UTF-8 is an error to most readers of JSON.
        _check(json.loads(line.decode()))


@pytest.mark.usefixtures("pod")
async def test_request_that_cannot_be_read_has_a_line_too(gateway: Gateway) -> None:
    before = len(gateway.log_lines())
    answer = await exchange(gateway.port, b'GET /"\xff\x01 HTTP/9.9"\r\n\r\n')
    assert b" 400 " in answer[:20]
    await until(lambda: len(gateway.log_lines()) > before)
    _check(json.loads(gateway.log_lines()[-1].decode()))


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("path", ["/secure", "/secured"])
async def test_answer_that_is_no_http_has_a_line_and_an_end(gateway: Gateway, path: str) -> None:
    """As of a server that is spoken to in plain text and expects TLS."""
    name = f"no-http-{path[1:]}"
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: {name}\r\n\r\n"
    await exchange(gateway.port, head.encode())
    line = await gateway.logged(name)
    _check(line)
    assert line["status"] in (0, 502)
    await gateway.idle()


@pytest.mark.usefixtures("pod")
async def test_secrets_and_prompts_are_not_in_the_log(gateway: Gateway, http: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer top-secret", "X-Api-Key": "top-secret", "X-Request-Id": "discreet"}
    await http.post("/picked?key=top-secret", content=b"top-secret", headers=headers)
    await gateway.logged("discreet")
    assert not any(b"top-secret" in line for line in gateway.log_lines())


@pytest.mark.usefixtures("pod")
async def test_request_whose_client_leaves_has_a_line(gateway: Gateway) -> None:
    async with connect(gateway.port) as (_, writer):
        writer.write(b"POST /picked HTTP/1.1\r\nHost: a\r\nX-Request-Id: gone\r\nContent-Length: 10\r\n\r\nx")
        await writer.drain()
    line = await gateway.logged("gone")
    _check(line)
    assert line["status"] in (400, 499)


@pytest.mark.usefixtures("pod")
async def test_lines_are_json_while_the_picker_dies(gateway: Gateway) -> None:
    """A kept connection to a dead picker makes nginx's times of the pick a list."""

    async def is_back() -> bool:
        return bool((await http.get("/empty")).json()["error"]["code"] == "no_endpoints")

    before = len(gateway.log_lines())
    async with client_of(gateway) as http:
        await asyncio.gather(*(http.get("/picked") for _ in range(30)))
        for pid in gateway.picker_pids():
            os.kill(pid, signal.SIGKILL)
        answers = [await http.get("/picked") for _ in range(30)]
        await eventually(is_back)
        answers += await asyncio.gather(*(http.get("/picked") for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    await gateway.logged(answers[-1].headers["x-request-id"])
    lines: list[Json] = [json.loads(line) for line in gateway.log_lines()[before:]]
    for line in lines:
        _check(line)
    assert {gateway.mode, "fail_open"} <= {line["mode"] for line in lines}
