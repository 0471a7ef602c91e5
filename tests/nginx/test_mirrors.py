"""Copies of requests."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.nginx.gateway import Gateway, until
from tests.nginx.resources import (
    Json,
    header,
    model_rewrite,
    pool,
    renamed,
    request_headers,
    response_headers,
    rewrite,
    route,
    rule,
    service,
    to_pool,
    to_service,
)
from tests.nginx.servers import Backend, Request, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

BODY = bytes(range(256)) * 2000


def _mirror(name: str, **share: object) -> Json:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}, **share}}


def _to_pool(name: str, **share: object) -> Json:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": to_pool(name), **share}}


def _rules(kind: str, backend: Json) -> list[Json]:
    prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    changed = [
        request_headers(set=[header("X-Set", "a")], remove=["X-Gone"]),
        response_headers(set=[header("X-Out", "b")]),
        rewrite(hostname="inner.example", path=prefix),
    ]
    return [
        rule(backend, path=f"/{kind}/all", filters=[_mirror("shadow")]),
        rule(backend, path=f"/{kind}/two", filters=[_mirror("shadow"), _mirror("other")]),
        rule(backend, path=f"/{kind}/some", filters=[_mirror("shadow", fraction={"numerator": 1, "denominator": 3})]),
        rule(backend, path=f"/{kind}/changed", filters=[_mirror("shadow"), *changed]),
        rule(backend, path=f"/{kind}/dead", filters=[_mirror("dead")]),
        rule({**backend, "filters": [_mirror("shadow")]}, path=f"/{kind}/inner"),
        rule(backend, path=f"/{kind}/picked/all", filters=[_to_pool("shadows")]),
        rule({**backend, "filters": [_to_pool("shadows")]}, path=f"/{kind}/picked/inner"),
        rule(backend, path=f"/{kind}/picked/changed", filters=[_to_pool("shadows"), *changed]),
        rule(backend, path=f"/{kind}/picked/named", filters=[_to_pool("named")]),
        rule(backend, path=f"/{kind}/picked/dead", filters=[_to_pool("dead")]),
        rule(
            backend,
            path=f"/{kind}/picked/some",
            filters=[_to_pool("shadows", fraction={"numerator": 1, "denominator": 3})],
        ),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(gateway: Gateway) -> AsyncIterator[tuple[Backend, Backend, Backend]]:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"copied", status="500 Broken"))

    async def ok(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok"))

    async with serve(ok) as backend, serve(answer) as shadow, serve(answer) as other:
        await gateway.apply(
            "routes.yaml",
            pool("backend", backend.address),
            service("backend", backend.address),
            service("shadow", shadow.address),
            service("other", other.address),
            service("dead", "127.0.0.1:1"),
            pool("shadows", "127.0.0.1:1", shadow.address),
            pool("named", other.address),
            pool("dead", "127.0.0.1:1"),
            model_rewrite("named", "named", renamed("llama", llama_next=1)),
            route("pool", *_rules("pool", to_pool("backend"))),
            route("service", *_rules("service", to_service("backend"))),
        )
        await gateway.knows("default/backend", backend.address)
        await gateway.knows("default/shadows", "127.0.0.1:1", shadow.address)
        await gateway.knows("default/named", other.address)
        yield backend, shadow, other


both_kinds = pytest.mark.parametrize("kind", ["pool", "service"])


@both_kinds
@pytest.mark.parametrize("path", ["all", "inner"])
async def test_copy_is_like_the_request(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str, path: str
) -> None:
    backend, shadow, _ = backends
    shadow.requests.clear()
    answer = await http.post(f"/{kind}/{path}/a%20b?c=%2F", content=BODY, headers={"X-Own": "d"})
    assert (answer.status_code, answer.content) == (200, b"ok")
    await until(lambda: shadow.requests)
    (copy,), sent = shadow.requests, backend.requests[-1]
    assert (copy.method, copy.target, copy.body) == (sent.method, sent.target, sent.body)
    assert (copy.values("x-own"), copy.values("host")) == (["d"], sent.values("host"))


@both_kinds
async def test_copies_go_to_each_mirror(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    _, shadow, other = backends
    shadow.requests.clear()
    other.requests.clear()
    assert (await http.post(f"/{kind}/two", content=b"x")).status_code == 200
    await until(lambda: shadow.requests and other.requests)
    assert (shadow.requests[0].body, other.requests[0].body) == (b"x", b"x")


@both_kinds
async def test_copy_has_the_changes_of_the_rule(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    backend, shadow, _ = backends
    shadow.requests.clear()
    answer = await http.put(f"/{kind}/changed/a%20b?c", content=b"x", headers={"X-Gone": "x"})
    assert (answer.status_code, answer.headers["x-out"]) == (200, "b")
    await until(lambda: shadow.requests)
    for arrived in (backend.requests[-1], shadow.requests[0]):
        assert (arrived.method, arrived.target, arrived.values("host")) == ("PUT", "/new/a%20b?c", ["inner.example"])
        assert (arrived.values("x-set"), arrived.values("x-gone")) == (["a"], [])


@both_kinds
async def test_share_of_requests_is_copied(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    _, shadow, _ = backends
    shadow.requests.clear()
    for _ in range(300):
        assert (await http.get(f"/{kind}/some")).status_code == 200
    # The last copy: it comes after those of earlier requests on this connection.
    await http.get(f"/{kind}/all/last")
    await until(lambda: any(request.target.endswith("/last") for request in shadow.requests))
    copies = len(shadow.requests) - 1
    assert 59 < copies < 141  # 100 expected, five standard deviations


@both_kinds
@pytest.mark.usefixtures("backends")
async def test_mirror_that_is_dead_disturbs_nobody(http: httpx.AsyncClient, kind: str) -> None:
    for _ in range(3):
        assert (await http.post(f"/{kind}/dead", content=b"x")).content == b"ok"


@pytest.mark.usefixtures("backends")
async def test_address_of_a_copy_is_no_path(http: httpx.AsyncClient) -> None:
    answer = await http.get("/mirror:default/pool/0/0")
    assert answer.status_code == 404


@both_kinds
async def test_copy_asks_for_no_upgrade(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    _, shadow, _ = backends
    shadow.requests.clear()
    await http.get(f"/{kind}/all", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    await until(lambda: shadow.requests)
    assert (shadow.requests[0].values("upgrade"), shadow.requests[0].values("connection")) == ([], [])


@both_kinds
@pytest.mark.parametrize("path", ["all", "inner"])
@pytest.mark.parametrize("body", [b"", b'{"model": "llama"}', BODY])
async def test_copy_to_a_pool_is_picked_and_like_the_request(
    gateway: Gateway,
    http: httpx.AsyncClient,
    backends: tuple[Backend, Backend, Backend],
    kind: str,
    path: str,
    body: bytes,
) -> None:
    backend, shadow, _ = backends
    shadow.requests.clear()
    headers = {"X-Own": "d", "X-Forwarded-For": "10.1.2.3"}
    answer = await http.post(f"/{kind}/picked/{path}/a%20b?c=%2F", content=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"ok")
    await until(lambda: shadow.requests)
    (copy,), sent = shadow.requests, backend.requests[-1]
    assert (copy.method, copy.target, copy.body) == (sent.method, sent.target, sent.body)
    for name in ("x-own", "host", "x-forwarded-for", "x-real-ip", "x-request-id", "x-infergate-pool"):
        assert copy.values(name) == sent.values(name), name
    await gateway.idle()


@both_kinds
async def test_copy_to_a_pool_has_the_changes_of_the_rule(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    _, shadow, _ = backends
    shadow.requests.clear()
    await http.put(f"/{kind}/picked/changed/a%20b?c", content=b"x", headers={"X-Gone": "x"})
    await until(lambda: shadow.requests)
    copy = shadow.requests[0]
    assert (copy.method, copy.target, copy.values("host")) == ("PUT", "/new/a%20b?c", ["inner.example"])
    assert (copy.values("x-set"), copy.values("x-gone")) == (["a"], [])


@both_kinds
async def test_copy_to_a_pool_names_the_model_of_the_pool(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    backend, _, other = backends
    other.requests.clear()
    await http.post(f"/{kind}/picked/named/v1/completions", json={"model": "llama", "prompt": "p"})
    await until(lambda: other.requests)
    assert json.loads(other.requests[0].body)["model"] == "llama-next"
    assert json.loads(backend.requests[-1].body)["model"] == "llama"


@both_kinds
@pytest.mark.usefixtures("backends")
async def test_pool_of_copies_that_is_dead_disturbs_nobody(http: httpx.AsyncClient, kind: str) -> None:
    for _ in range(3):
        assert (await http.post(f"/{kind}/picked/dead", content=b"x")).content == b"ok"


@both_kinds
async def test_share_of_requests_is_copied_to_a_pool(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend], kind: str
) -> None:
    _, shadow, _ = backends
    shadow.requests.clear()
    for _ in range(300):
        assert (await http.get(f"/{kind}/picked/some")).status_code == 200
    await http.get(f"/{kind}/picked/all/last")
    await until(lambda: any(request.target.endswith("/last") for request in shadow.requests))
    copies = len(shadow.requests) - 1
    assert 59 < copies < 141  # 100 expected, five standard deviations


async def test_client_sends_no_copy_by_a_header(
    http: httpx.AsyncClient, backends: tuple[Backend, Backend, Backend]
) -> None:
    backend, shadow, _ = backends
    shadow.requests.clear()
    await http.get("/service/dead", headers={"X-Infergate-Pool": "default/shadows"})
    assert not shadow.requests
    assert backend.requests[-1].values("x-infergate-pool") == []
