"""What clients of gRPC see, over TLS and without."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.calls import SERVICE, Calls, CallServer, calls_to, serve_calls
from tests.nginx.certificates import Authority, certificate
from tests.nginx.gateway import SECONDS, Gateway, client_of, run_gateway, until
from tests.nginx.http2 import serve_http2
from tests.nginx.resources import (
    Json,
    authorities,
    call_route,
    call_rule,
    header,
    listener,
    request_headers,
    response_headers,
    route,
    rule,
    secret,
    service,
    tls_policy,
    to_service,
)
from tests.nginx.servers import nobody, serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

HOST = "shop.example"
CHAIN, KEY = certificate(HOST)


@dataclass(frozen=True)
class Site:
    """A gateway with two servers of gRPC behind it, `one` and `two`."""

    gateway: Gateway
    tls_port: int
    one: CallServer
    two: CallServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(root: Path, nginx: Nginx) -> AsyncIterator[Site]:
    (tls_port,) = free_ports(1)

    def listeners(port: int) -> list[Json]:
        return [listener(port), listener(tls_port, name="https", certificate="shop")]

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve_calls("one"))
        two = await stack.enter_async_context(serve_calls("two"))
        gateway = await stack.enter_async_context(run_gateway(root, nginx, picker=(), listeners=listeners))
        await gateway.apply(
            "services.yaml",
            secret("shop", chain=CHAIN, key=KEY),
            service("one", one.address, protocol="kubernetes.io/h2c"),
            service("two", two.address),
        )
        yield Site(gateway, tls_port, one, two)


@pytest_asyncio.fixture(loop_scope="module")
async def calls(site: Site) -> AsyncIterator[Calls]:
    async with calls_to(site.gateway.port, host=HOST) as calls:
        yield calls


@pytest.mark.parametrize("secure", [False, True], ids=["cleartext", "tls"])
async def test_call_arrives_with_its_host_and_its_answer_with_trailers(site: Site, secure: bool) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("one"))))
    port, trusted = (site.tls_port, CHAIN) if secure else (site.gateway.port, None)

    async with calls_to(port, host=HOST, certificate=trusted) as calls:
        told = await calls.call(message=b"x" * 300_000, x_tier="gold")

    assert told.code is grpc.StatusCode.OK
    assert (told.body["server"], told.body["size"]) == ("one", 300_000)
    headers = dict(told.body["headers"])
    assert headers["x-tier"] == "gold"
    assert headers["x-forwarded-proto"] == ("https" if secure else "http")
    assert told.trailers["x-trailer"] == "last"
    assert told.trailers["x-bytes-bin"] == b"\x00\xff"


async def test_failure_of_a_server_keeps_its_code_and_words(site: Site, calls: Calls) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("one"))))

    told = await calls.call("Fail")

    assert (told.code, told.details) == (grpc.StatusCode.FAILED_PRECONDITION, "out of stock: 100 % gone")
    assert told.trailers["x-trailer"] == "last"


async def test_streams_flow_both_ways_at_once(site: Site, calls: Calls) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("two"))))

    counted = await calls.channel.stream_unary(f"/{SERVICE}/Count")(iter([b"x" * 100_000] * 20), timeout=SECONDS)
    numbers = [item async for item in calls.channel.unary_stream(f"/{SERVICE}/Repeat")(b"50", timeout=SECONDS)]
    echo = calls.channel.stream_stream(f"/{SERVICE}/Echo")(timeout=SECONDS)
    heard = []
    for item in (b"a", b"b", b"c"):
        await echo.write(item)  # the next one is sent after the answer to this one
        heard.append(await echo.read())
    await echo.done_writing()

    assert counted == b"2000000"
    assert numbers == [str(number).encode() for number in range(50)]
    assert heard == [b"a", b"b", b"c"]
    assert await echo.code() is grpc.StatusCode.OK


async def test_stream_that_a_client_gives_up_ends_at_the_server(site: Site, calls: Calls) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("two"))))
    site.two.cancelled.clear()

    waiting = calls.channel.unary_stream(f"/{SERVICE}/Wait")(b"", timeout=2 * SECONDS)
    await waiting.read()
    waiting.cancel()

    async with asyncio.timeout(SECONDS):
        await site.two.cancelled.wait()


async def test_stream_outlives_a_reload(site: Site, calls: Calls) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("two"))))

    echo = calls.channel.stream_stream(f"/{SERVICE}/Echo")(timeout=2 * SECONDS)
    await echo.write(b"before")
    before = await echo.read()
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("one"))))
    await echo.write(b"after")
    after = await echo.read()
    await echo.done_writing()

    assert (before, after) == (b"before", b"after")
    assert await echo.code() is grpc.StatusCode.OK
    assert (await calls.call()).body["server"] == "one"


async def test_more_specific_match_wins_whatever_the_order(site: Site, calls: Calls) -> None:
    shown = {name: response_headers(set=[header("x-rule", name)]) for name in ("any", "service", "method", "header")}
    await site.gateway.apply(
        "routes.yaml",
        call_route(
            "shop",
            call_rule(to_service("one"), filters=[shown["any"]]),
            call_rule(to_service("one"), service=SERVICE, filters=[shown["service"]]),
            call_rule(to_service("one"), service=SERVICE, method="Fail", filters=[shown["method"]]),
            call_rule(to_service("one"), service=SERVICE, headers=[header("tier", "gold")], filters=[shown["header"]]),
        ),
    )

    async def rule_of(method: str, of: str = SERVICE, **headers: str) -> str:
        running = calls.channel.unary_unary(f"/{of}/{method}")(b"", metadata=tuple(headers.items()), timeout=SECONDS)
        found = dict(await running.initial_metadata()).get("x-rule", "")
        return str(found or dict(await running.trailing_metadata())["x-rule"])

    assert await rule_of("Describe") == "service"
    assert await rule_of("Fail") == "method"
    assert await rule_of("Describe", tier="gold") == "header"
    assert await rule_of("Describe", "test.Other") == "any"


async def test_calls_of_a_method_of_any_service_and_of_an_expression(site: Site, calls: Calls) -> None:
    pattern = {"matches": [{"method": {"type": "RegularExpression", "service": "test\\.S.*", "method": "D.*e"}}]}
    await site.gateway.apply(
        "routes.yaml",
        call_route(
            "shop",
            call_rule(to_service("one"), method="Fail"),
            {**call_rule(to_service("two")), **pattern},
        ),
    )

    assert (await calls.call("Fail")).code is grpc.StatusCode.FAILED_PRECONDITION
    assert (await calls.call("Describe")).body["server"] == "two"
    assert (await calls.call("Describe", service="best.Shop")).code is grpc.StatusCode.UNIMPLEMENTED
    assert (await calls.call("Repeat")).code is grpc.StatusCode.UNIMPLEMENTED


async def test_call_that_no_rule_matches_is_unimplemented(site: Site, calls: Calls) -> None:
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("one"), service=SERVICE)))

    told = await calls.call(service="test.Other")

    assert (told.code, told.details) == (grpc.StatusCode.UNIMPLEMENTED, "no route matches this request")


BROKEN = {
    "service that does not exist": [to_service("missing")],
    "no backend": [],
    "nobody listens": [to_service("nobody")],
    "no endpoint": [to_service("empty")],
}


@pytest.mark.parametrize("name", sorted(BROKEN))
async def test_call_without_a_backend_is_unavailable(site: Site, calls: Calls, name: str) -> None:
    with nobody() as address:
        await site.gateway.apply(
            "routes.yaml",
            call_route("shop", call_rule(*BROKEN[name])),
            service("nobody", address),
            service("empty"),
        )

        told = await calls.call()

    assert told.code is grpc.StatusCode.UNAVAILABLE
    assert told.details


async def test_other_clients_get_a_status_where_calls_go(site: Site) -> None:
    with nobody() as address:
        await site.gateway.apply(
            "routes.yaml",
            call_route(
                "shop",
                call_rule(to_service("missing"), service="test.Missing"),
                call_rule(to_service("nobody"), service="test.Nobody"),
            ),
            service("nobody", address),
        )
        async with client_of(site.gateway) as client:
            missing = await client.post("/test.Missing/A", content=b"{}")
            down = await client.post("/test.Nobody/A", content=b"{}")
            unknown = await client.post("/test.Unknown/A", content=b"{}")

    assert (missing.status_code, missing.json()["error"]["code"]) == (500, "no_backend")
    assert "Service default/missing does not exist" in missing.json()["error"]["message"]
    assert (down.status_code, down.json()["error"]["code"]) == (502, "backend_unavailable")
    assert unknown.status_code == 404


async def test_headers_of_a_rule_and_of_its_backend_are_changed(site: Site, calls: Calls) -> None:
    await site.gateway.apply(
        "routes.yaml",
        call_route(
            "shop",
            call_rule(
                {**to_service("one"), "filters": [request_headers(add=[header("x-tier", "silver")])]},
                filters=[
                    request_headers(set=[header("x-shop", "a b")], remove=["x-secret"]),
                    response_headers(add=[header("x-from", "gateway")]),
                ],
            ),
        ),
    )

    running = calls.channel.unary_unary(f"/{SERVICE}/Describe")(
        b"", metadata=(("x-secret", "1"), ("x-tier", "gold")), timeout=SECONDS
    )
    first = dict(await running.initial_metadata())
    headers = dict(json.loads(await running)["headers"])

    assert first["x-from"] == "gateway"
    assert (headers["x-shop"], headers["x-tier"]) == ("a b", "gold,silver")
    assert "x-secret" not in headers


async def test_calls_are_divided_by_weight(site: Site, calls: Calls) -> None:
    shares = [to_service("one", weight=3), to_service("two", weight=1), to_service("missing", weight=0)]
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(*shares)))

    told = await asyncio.gather(*(calls.call() for _ in range(400)))

    counts = Counter(each.body["server"] for each in told)
    assert counts.keys() == {"one", "two"}
    assert 0.66 < counts["one"] / 400 < 0.84  # four standard deviations


async def test_call_is_mirrored(site: Site, calls: Calls) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": to_service("two")}}
    await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("one"), filters=[mirror])))
    before = len(site.two.seen)

    told = await calls.call(message=b"copied")

    assert told.body["server"] == "one"
    async with asyncio.timeout(SECONDS):
        while len(site.two.seen) == before:  # noqa: ASYNC110 - another connection's turn
            await asyncio.sleep(0.01)


async def test_routes_of_two_kinds_share_a_port_and_a_backend_by_hosts(site: Site, calls: Calls) -> None:
    async with serve() as backend:
        await site.gateway.apply(
            "routes.yaml",
            call_route("shop", call_rule(to_service("one")), hostnames=[HOST]),
            route("web", rule(to_service("web")), hostnames=["web.example"]),
            service("web", backend.address),
        )
        async with client_of(site.gateway) as client, client_of(site.gateway, http2=True) as newer:
            plain = await client.get("/", headers={"host": "web.example"})
            upgraded = await newer.get("/", headers={"host": "web.example"})
            told = await calls.call()

    assert (plain.http_version, plain.status_code) == ("HTTP/1.1", 200)
    assert (upgraded.http_version, upgraded.status_code) == ("HTTP/2", 200)
    assert told.body["server"] == "one"


async def test_calls_and_other_requests_to_one_service_share_no_connection(site: Site) -> None:
    """nginx would use a connection that it keeps, whatever was spoken on it."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_http2())
        await site.gateway.apply(
            "routes.yaml",
            service("both", address, protocol="kubernetes.io/h2c"),
            call_route("shop", call_rule(to_service("both")), hostnames=[HOST]),
            route("web", rule(to_service("both")), hostnames=["web.example"]),
        )
        client = await stack.enter_async_context(client_of(site.gateway))
        answers = [
            await client.post("/test.Shop/A", headers={"host": host})
            for _ in range(5)
            for host in ("web.example", HOST)
        ]

    assert [answer.status_code for answer in answers] == [200] * 10


URI = "spiffe://backend.example/shop"


@pytest.mark.parametrize(
    ("shown", "validation", "code"),
    [
        ("backend.example", {}, grpc.StatusCode.OK),
        ("other.example", {}, grpc.StatusCode.UNAVAILABLE),
        (URI, {"subjectAltNames": [{"type": "URI", "uri": URI}]}, grpc.StatusCode.OK),
        ("backend.example", {"subjectAltNames": [{"type": "URI", "uri": URI}]}, grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["name", "other-name", "uri", "other-uri"],
)
async def test_server_with_a_policy_is_called_in_tls(
    site: Site, shown: str, validation: Json, code: grpc.StatusCode
) -> None:
    authority = Authority()
    async with serve_calls("secure", tls=authority.certificate(shown)) as server:
        await site.gateway.apply(
            "secure.yaml",
            service("secure", server.address),
            authorities("ca", authority.chain),
            tls_policy("secure", **validation),
        )
        await site.gateway.apply("routes.yaml", call_route("shop", call_rule(to_service("secure"))))
        await until(lambda: len(site.gateway.workers()) == 2)
        async with calls_to(site.gateway.port, host=HOST) as fresh:
            told = await fresh.call()
    site.gateway.write("secure.yaml")
    assert told.code is code
    assert server.seen == (["Describe"] if code is grpc.StatusCode.OK else [])
