"""Backends that are spoken to in TLS, as BackendTLSPolicies say."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.certificates import Authority
from tests.nginx.gateway import Gateway, client_of, eventually, run_gateway, until
from tests.nginx.resources import (
    Json,
    authorities,
    listener,
    pool,
    route,
    rule,
    secret,
    service,
    tls_policy,
    to_pool,
    to_service,
)
from tests.nginx.resources import gateway as gateway_resource
from tests.nginx.servers import Backend, Request, response, serve, server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

OURS, OTHER = Authority("ours"), Authority("other")
NAME = "backend.example"
WORKERS = 2
"""Of a gateway without those that a reload retires, which might take a connection still."""


def _context(*names: str, authority: Authority = OURS) -> ssl.SSLContext:
    return server_tls(*authority.certificate(*names))


@pytest_asyncio.fixture(loop_scope="module")
async def backend() -> AsyncIterator[Backend]:
    """Has a certificate of our authority, of the right name."""
    async with serve(tls=_context(NAME), name="secure") as backend:
        yield backend


async def _status(gateway: Gateway, backend: Backend, *more: Json | list[Json]) -> int:
    """What a new client gets from a route to a Service with these resources."""
    await gateway.apply(
        "resources.yaml",
        route("cart", rule(to_service("cart"))),
        service("cart", backend.address),
        authorities("ca", OURS.chain),
        *more,
    )
    await until(lambda: len(gateway.workers()) == WORKERS)
    async with client_of(gateway) as http:
        return (await http.get("/")).status_code


async def test_backend_is_asked_by_its_name_and_known_by_its_certificate(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    assert await _status(gateway, backend, tls_policy("cart")) == 200
    assert backend.asked_names == [NAME]
    await http.get("/")
    connections = backend.connections
    for _ in range(3):
        assert (await http.get("/")).status_code == 200
    assert backend.connections == connections


async def test_certificate_of_another_name_is_not_taken(gateway: Gateway) -> None:
    async with serve(tls=_context("other.example")) as backend:
        assert await _status(gateway, backend, tls_policy("cart")) == 502
        assert backend.requests == []


async def test_certificate_of_another_authority_is_not_taken(gateway: Gateway) -> None:
    async with serve(tls=_context(NAME, authority=OTHER)) as backend:
        assert await _status(gateway, backend, tls_policy("cart")) == 502
        assert backend.requests == []


async def test_one_of_several_authorities_will_do(gateway: Gateway) -> None:
    policy = tls_policy("cart", authorities=["ca", "more"])
    async with serve(tls=_context(NAME, authority=OTHER)) as backend:
        assert await _status(gateway, backend, policy, authorities("more", OTHER.chain)) == 200


async def test_authority_that_goes_takes_the_backend_along(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    assert await _status(gateway, backend, tls_policy("cart", authorities=["new"])) == 500
    assert await _status(gateway, backend, tls_policy("cart")) == 200
    assert await _status(gateway, backend, tls_policy("cart", authorities=["new"])) == 500
    assert await _status(
        gateway, backend, tls_policy("cart", authorities=["new"]), authorities("new", OTHER.chain)
    ) in (502,)
    assert (
        await _status(gateway, backend, tls_policy("cart", authorities=["new"]), authorities("new", OURS.chain)) == 200
    )


async def test_backend_in_plain_text_gets_nothing_of_a_policy_s_requests(gateway: Gateway) -> None:
    async with serve() as backend:
        assert await _status(gateway, backend) == 200
        backend.requests.clear()
        assert await _status(gateway, backend, tls_policy("cart")) == 504
        assert await _status(gateway, backend, tls_policy("cart", authorities=["missing"])) == 500
        assert backend.requests == []


async def test_mirror_of_a_backend_with_a_policy_is_sent_in_tls(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": to_service("copy")}}
    async with serve(name="plain") as plain:
        await gateway.apply(
            "resources.yaml",
            route("cart", rule(to_service("cart"), filters=[mirror])),
            service("cart", plain.address),
            service("copy", backend.address),
            authorities("ca", OURS.chain),
            tls_policy("copy"),
        )
        assert (await http.get("/mirrored")).json()["server"] == "plain"
        await until(lambda: [request.target for request in backend.requests] == ["/mirrored"])


@pytest.mark.parametrize("names", [[], [{"type": "Hostname", "hostname": "other.example"}]])
async def test_copy_to_a_pool_is_sent_in_tls_with_the_certificate_of_the_gateway(
    nginx: Nginx, tmp_path: Path, names: list[Json]
) -> None:
    """By NGINX itself, or by the dialer where the pool is known by another name than it is asked for."""
    chain, key = OURS.certificate("edge.example")
    tls = server_tls(*OURS.certificate("other.example" if names else NAME), clients=OURS.chain)
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": to_pool("gpu")}}
    async with serve(tls=tls) as backend, serve() as plain, run_gateway(tmp_path, nginx) as gateway:
        gateway.write("gateway.yaml", _edge(gateway.port, shows="edge-tls"))
        await gateway.apply(
            "resources.yaml",
            secret("edge-tls", chain=chain, key=key),
            route("cart", rule(to_service("cart"), filters=[mirror])),
            service("cart", plain.address),
            pool("gpu", backend.address),
            authorities("ca", OURS.chain),
            tls_policy("gpu", kind="InferencePool", subjectAltNames=names),
        )
        await gateway.knows("default/gpu", backend.address)
        async with client_of(gateway) as http:
            assert (await http.post("/mirrored", content=b"x")).status_code == 200
            await until(lambda: [request.target for request in backend.requests] == ["/mirrored"])


async def test_picked_endpoint_of_a_pool_is_spoken_to_in_tls(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    await gateway.apply(
        "resources.yaml",
        route("llm", rule(to_pool("gpu"))),
        pool("gpu", backend.address),
        authorities("ca", OURS.chain),
        tls_policy("gpu", kind="InferencePool"),
    )
    answer = await http.post("/v1/completions", json={"model": "m", "prompt": "hello"})
    assert (answer.status_code, answer.json()["server"]) == (200, "secure")
    assert set(backend.asked_names) == {NAME}


async def test_pools_of_one_endpoint_keep_their_connections_apart(
    gateway: Gateway, http: httpx.AsyncClient, backend: Backend
) -> None:
    """One pool knows the endpoint, the other one would be told another name."""
    await gateway.apply(
        "resources.yaml",
        route("right", rule(to_pool("right"), path="/right")),
        route("wrong", rule(to_pool("wrong"), path="/wrong")),
        pool("right", backend.address),
        pool("wrong", backend.address),
        authorities("ca", OURS.chain),
        tls_policy("right", kind="InferencePool"),
        tls_policy("wrong", kind="InferencePool", hostname="wrong.example"),
    )
    body = {"model": "m", "prompt": "hello"}
    assert (await http.post("/right", json=body)).status_code == 200
    assert (await http.post("/wrong", json=body)).status_code >= 500
    assert (await http.post("/right", json=body)).status_code == 200
    assert {request.target for request in backend.requests} == {"/right"}


async def test_pool_that_fails_open_stays_in_tls(nginx: Nginx, backend: Backend, tmp_path: Path) -> None:
    async with run_gateway(tmp_path, nginx, picker=()) as gateway, client_of(gateway) as http:
        await gateway.apply(
            "resources.yaml",
            route("llm", rule(to_pool("gpu"))),
            pool("gpu", backend.address, mode="FailOpen"),
            authorities("ca", OURS.chain),
            tls_policy("gpu", kind="InferencePool"),
        )
        (gateway.state.run / "picker.sock").unlink()
        answer = await http.post("/v1/completions", json={"model": "m", "prompt": "hello"})
    assert (answer.status_code, answer.json()["server"]) == (200, "secure")
    assert backend.asked_names == [NAME]


def _edge(port: int, *, name: str = "edge", shows: str | None) -> Json:
    made = gateway_resource(listener(port))
    made["metadata"]["name"] = name
    if shows:
        made["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": shows}}}
    return made


async def test_gateway_shows_its_own_certificate_and_no_other_gateway_s(nginx: Nginx, tmp_path: Path) -> None:
    """Two Gateways on one nginx, one backend that takes no client without a certificate of our authority."""
    chain, key = OURS.certificate("edge.example")
    tls = server_tls(*OURS.certificate(NAME), clients=OURS.chain)
    bare = free_ports(1)[0]
    to_both = route("cart", rule(to_service("cart")))
    to_both["spec"]["parentRefs"] = [{"name": "edge"}, {"name": "bare"}]
    async with serve(tls=tls) as backend, run_gateway(tmp_path, nginx) as gateway, httpx.AsyncClient() as http:
        gateway.write("gateway.yaml", _edge(gateway.port, shows="edge-tls"))
        await gateway.apply(
            "resources.yaml",
            _edge(bare, name="bare", shows=None),
            secret("edge-tls", chain=chain, key=key),
            to_both,
            service("cart", backend.address),
            authorities("ca", OURS.chain),
            tls_policy("cart"),
        )
        await until(lambda: len(gateway.workers()) == WORKERS)
        for _ in range(3):
            assert (await http.get(gateway.url)).status_code == 200
            # A server of TLS 1.3 misses the certificate only after the handshake.
            assert (await http.get(f"http://127.0.0.1:{bare}")).status_code == 502
    assert len(backend.requests) == 3


def _known_by(*names: str) -> Json:
    listed = [{"type": "URI", "uri": name} if ":" in name else {"type": "Hostname", "hostname": name} for name in names]
    return tls_policy("cart", subjectAltNames=listed)


URI = "spiffe://backend.example/cart"
KNOWN = [
    ([URI], [URI], 200),
    ([NAME, URI], [URI], 200),
    ([URI], ["other.example", URI], 200),
    (["first.example", "second.example"], ["second.example"], 200),
    (["*.shop.example"], ["cart.shop.example"], 200),
    (["cart.shop.example"], ["*.shop.example"], 200),
    ([NAME], [URI], 502),
    ([URI + "/more"], [URI], 502),
    ([NAME], ["other.example"], 502),
    (["a.b.example"], ["*.b.c.example"], 502),
]


@pytest.mark.parametrize(("shown", "wanted", "status"), KNOWN)
async def test_certificate_has_one_of_the_wanted_names(
    gateway: Gateway, shown: list[str], wanted: list[str], status: int
) -> None:
    async with serve(tls=_context(*shown)) as backend:
        assert await _status(gateway, backend, _known_by(*wanted)) == status
        assert set(backend.asked_names) == {NAME}
        assert len(backend.requests) == (1 if status == 200 else 0)


async def test_wanted_name_is_worth_nothing_without_its_authority(gateway: Gateway) -> None:
    async with serve(tls=_context(URI, authority=OTHER)) as backend:
        assert await _status(gateway, backend, _known_by(URI)) == 502
        assert backend.requests == []


async def test_large_bodies_pass_the_dialer_both_ways(gateway: Gateway, http: httpx.AsyncClient) -> None:
    body = b"0123456789abcdef" * 500_000

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(request.body))

    async with serve(echo, tls=_context(URI)) as backend:
        assert await _status(gateway, backend, _known_by(URI)) == 200
        async with client_of(gateway) as fresh:
            assert (await fresh.post("/", content=body)).content == body


async def test_connection_through_the_dialer_is_kept(gateway: Gateway) -> None:
    async with serve(tls=_context(URI)) as backend:
        assert await _status(gateway, backend, _known_by(URI)) == 200
        async with client_of(gateway) as http:
            await http.get("/")
            handshakes = len(backend.asked_names)
            for _ in range(3):
                assert (await http.get("/")).status_code == 200
        assert len(backend.asked_names) == handshakes


async def test_dialer_that_is_killed_comes_back(gateway: Gateway) -> None:
    async with serve(tls=_context(URI)) as backend:
        assert await _status(gateway, backend, _known_by(URI)) == 200
        before = gateway.data_plane.dialer_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: gateway.data_plane.dialer_pid not in (before, None))

        async def answers() -> bool:
            async with client_of(gateway) as http:
                return (await http.get("/")).status_code == 200

        await eventually(answers)


async def test_gateway_without_such_names_has_no_dialer(nginx: Nginx, backend: Backend, tmp_path: Path) -> None:
    async with run_gateway(tmp_path, nginx) as gateway:
        assert await _status(gateway, backend, tls_policy("cart")) == 200
        assert gateway.data_plane.dialer_pid is None


async def test_dialer_shows_the_certificate_of_the_gateway(nginx: Nginx, tmp_path: Path) -> None:
    chain, key = OURS.certificate("edge.example")
    tls = server_tls(*OURS.certificate(URI), clients=OURS.chain)
    bare = free_ports(1)[0]
    to_both = route("cart", rule(to_service("cart")))
    to_both["spec"]["parentRefs"] = [{"name": "edge"}, {"name": "bare"}]
    async with serve(tls=tls) as backend, run_gateway(tmp_path, nginx) as gateway, httpx.AsyncClient() as http:
        gateway.write("gateway.yaml", _edge(gateway.port, shows="edge-tls"))
        await gateway.apply(
            "resources.yaml",
            _edge(bare, name="bare", shows=None),
            secret("edge-tls", chain=chain, key=key),
            to_both,
            service("cart", backend.address),
            authorities("ca", OURS.chain),
            _known_by(URI),
        )
        await until(lambda: len(gateway.workers()) == WORKERS)
        for _ in range(3):
            assert (await http.get(gateway.url)).status_code == 200
            assert (await http.get(f"http://127.0.0.1:{bare}")).status_code == 502
    assert len(backend.requests) == 3


METRICS = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"


@pytest.mark.parametrize(("name", "is_read"), [(NAME, True), ("other.example", False)])
async def test_picker_reads_metrics_over_tls_from_who_it_knows(gateway: Gateway, name: str, is_read: bool) -> None:
    server = await asyncio.start_server(_metrics, "127.0.0.1", 0, ssl=_context(name))
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        await gateway.apply(
            "resources.yaml",
            route("llm", rule(to_pool("gpu"))),
            pool("gpu", address),
            authorities("ca", OURS.chain),
            tls_policy("gpu", kind="InferencePool"),
        )

        async def is_told() -> bool:
            (shown,) = (await gateway.pools())["pools"][0]["endpoints"]
            return bool(shown["isPreferred"]) if is_read else int(shown["scrapeFailures"]) > 0

        await eventually(is_told)
        (shown,) = (await gateway.pools())["pools"][0]["endpoints"]
    assert shown["isPreferred"] is is_read


async def _metrics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(response(METRICS))
    writer.close()
