"""Pools in TLS whose endpoints are known by names that NGINX does not compare, or that an external picker picks for."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from controller.agent.nginx import Nginx
from tests.nginx.certificates import Authority
from tests.nginx.ext_proc import as_the_field_does, serve_ext_proc
from tests.nginx.gateway import Gateway, client_of, eventually, run_gateway, until
from tests.nginx.resources import (
    Json,
    authorities,
    listener,
    model_rewrite,
    picked_pool,
    pool,
    renamed,
    rewrite,
    route,
    rule,
    secret,
    tls_policy,
    to_pool,
)
from tests.nginx.resources import gateway as gateway_resource
from tests.nginx.servers import Answer, Backend, Request, connect, describe, response, serve, server_tls
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

OURS, OTHER = Authority("ours"), Authority("other")
CA = authorities("ca", OURS.chain)
NAME, URI = "backend.example", "spiffe://backend.example/llm"
BODY = {"model": "m", "prompt": "hello"}
METRICS = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
WORKERS = 2


def _context(*names: str, authority: Authority = OURS) -> ssl.SSLContext:
    return server_tls(*authority.certificate(*names))


def _known_by(*names: str, target: str = "gpu") -> Json:
    listed = [{"type": "URI", "uri": name} if ":" in name else {"type": "Hostname", "hostname": name} for name in names]
    return tls_policy(target, kind="InferencePool", subjectAltNames=listed)


async def _serves(gateway: Gateway, *resources: Json | list[Json]) -> None:
    """A gateway with these resources and no others, whose old workers are gone."""
    await gateway.apply("resources.yaml", CA, *resources)
    await until(lambda: len(gateway.workers()) == WORKERS)


async def _post(gateway: Gateway, path: str = "/v1/completions", **fields: object) -> httpx.Response:
    async with client_of(gateway) as http:
        return await http.post(path, json={**BODY, **fields})


def _prompts(backend: Backend) -> list[str]:
    """What was asked, but for the picker's own questions."""
    return [request.target for request in backend.requests if request.method == "POST"]


KNOWN = [
    ([URI], [URI], True),
    (["first.example"], ["second.example", "first.example"], True),
    (["cart.shop.example"], ["*.shop.example"], True),
    ([NAME], [URI], False),
    ([URI + "/more"], [URI], False),
]


@pytest.mark.parametrize(("shown", "wanted", "is_known"), KNOWN)
async def test_picked_endpoint_has_one_of_the_wanted_names(
    gateway: Gateway, shown: list[str], wanted: list[str], is_known: bool
) -> None:
    async with serve(tls=_context(*shown), name="secure") as backend:
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), pool("gpu", backend.address), _known_by(*wanted))
        answer = await _post(gateway)
        assert (answer.status_code == 200) is is_known
        assert _prompts(backend) == (["/v1/completions"] if is_known else [])
        assert set(backend.asked_names) == {NAME}


async def test_wanted_name_is_worth_nothing_without_its_authority(gateway: Gateway) -> None:
    async with serve(tls=_context(URI, authority=OTHER)) as backend:
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), pool("gpu", backend.address), _known_by(URI))
        assert (await _post(gateway)).status_code >= 500
        assert backend.requests == []


async def test_connection_to_a_picked_endpoint_is_kept(gateway: Gateway) -> None:
    async with serve(tls=_context(URI)) as backend:
        # Another path is a reload, with which nginx knows the endpoint.
        rules = rule(to_pool("gpu")), rule(to_pool("gpu"), path="/kept")
        await _serves(gateway, route("llm", *rules), pool("gpu", backend.address), _known_by(URI))
        async with client_of(gateway) as http:
            for _ in range(20):
                assert (await http.post("/v1/completions", json=BODY)).status_code == 200
        connections = {request.connection for request in backend.requests if request.method == "POST"}
        # A worker each, since the connections that are kept are a worker's own.
        assert len(connections) <= WORKERS


async def test_path_is_rewritten_on_the_way_to_a_picked_endpoint(gateway: Gateway) -> None:
    change = rewrite(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"})
    rules = rule(to_pool("gpu"), path="/llm", filters=[change])
    async with serve(tls=_context(URI)) as backend:
        await _serves(gateway, route("llm", rules), pool("gpu", backend.address), _known_by(URI))
        assert (await _post(gateway, "/llm/completions")).status_code == 200
        assert _prompts(backend) == ["/v1/completions"]


@pytest.mark.parametrize("path", ["/", "/llm"])
async def test_endpoint_that_comes_without_a_reload_is_known_as_well(nginx: Nginx, tmp_path: Path, path: str) -> None:
    """nginx has no upstream for it, and reaches the dialer's socket by its name."""
    change = rewrite(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"})
    rules = rule(to_pool("gpu"), path=path, filters=[change] if path == "/llm" else [])
    asked = "/llm/completions" if path == "/llm" else "/v1/completions"
    async with (
        run_gateway(tmp_path, nginx, endpoints_delay=3600) as gateway,
        serve(tls=_context(URI), name="one") as one,
        serve(tls=_context(URI), name="two") as two,
        serve(tls=_context(NAME), name="stranger") as stranger,
    ):
        given = route("llm", rules), _known_by(URI)
        await _serves(gateway, *given, pool("gpu", one.address))
        before = gateway.state.current.readlink()
        await gateway.apply("resources.yaml", CA, *given, pool("gpu", two.address))

        async def is_served_by_two() -> bool:
            return bool((await _post(gateway, asked)).json().get("server") == "two")

        await eventually(is_served_by_two)
        assert _prompts(two)[-1] == "/v1/completions"
        await gateway.apply("resources.yaml", CA, *given, pool("gpu", stranger.address))

        async def is_served_by_nobody() -> bool:
            return (await _post(gateway, asked)).status_code == 502

        await eventually(is_served_by_nobody)
        assert _prompts(stranger) == []
        assert gateway.state.current.readlink() == before


async def test_request_of_another_model_reaches_an_endpoint_that_is_known(gateway: Gateway) -> None:
    names = model_rewrite("names", "gpu", renamed("m", other=1))
    rules = route("llm", rule(to_pool("gpu")))
    async with serve(tls=_context(URI)) as backend:
        await _serves(gateway, rules, names, pool("gpu", backend.address), _known_by(URI))
        assert (await _post(gateway)).status_code == 200
        assert [b'"other"' in request.body for request in backend.requests if request.method == "POST"] == [True]
    async with serve(tls=_context(NAME)) as backend:
        await _serves(gateway, rules, names, pool("gpu", backend.address), _known_by(URI))
        assert (await _post(gateway)).status_code >= 500
        assert _prompts(backend) == []


@pytest.mark.parametrize(("name", "is_known"), [(URI, True), (NAME, False)])
async def test_pool_that_fails_open_asks_whom_it_knows(nginx: Nginx, tmp_path: Path, name: str, is_known: bool) -> None:
    async with (
        serve(tls=_context(name), name="secure") as backend,
        run_gateway(tmp_path, nginx, picker=()) as gateway,
    ):
        given = pool("gpu", backend.address, mode="FailOpen")
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), given, _known_by(URI))
        (gateway.state.run / "picker.sock").unlink()
        assert (await _post(gateway)).status_code == (200 if is_known else 502)
        assert len(backend.requests) == int(is_known)


@pytest.mark.parametrize(("name", "is_read"), [(URI, True), (NAME, False)])
async def test_picker_reads_metrics_of_whom_it_knows(gateway: Gateway, name: str, is_read: bool) -> None:
    server = await asyncio.start_server(_metrics, "127.0.0.1", 0, ssl=_context(name))
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), pool("gpu", address), _known_by(URI))

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


async def test_each_gateway_shows_its_own_certificate_to_a_pool(nginx: Nginx, tmp_path: Path) -> None:
    chain, key = OURS.certificate("edge.example")
    tls = server_tls(*OURS.certificate(URI), clients=OURS.chain)
    bare = free_ports(1)[0]
    to_both = route("llm", rule(to_pool("gpu")))
    to_both["spec"]["parentRefs"] = [{"name": "edge"}, {"name": "bare"}]
    async with serve(tls=tls) as backend, run_gateway(tmp_path, nginx) as gateway, httpx.AsyncClient() as http:
        edge = gateway_resource(listener(gateway.port))
        edge["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "edge-tls"}}}
        edge["metadata"]["name"] = "edge"
        without = gateway_resource(listener(bare))
        without["metadata"]["name"] = "bare"
        gateway.write("gateway.yaml", edge)
        secrets = secret("edge-tls", chain=chain, key=key)
        await _serves(gateway, without, secrets, to_both, pool("gpu", backend.address), _known_by(URI))
        for _ in range(3):
            assert (await http.post(gateway.url, json=BODY)).status_code == 200
            assert (await http.post(f"http://127.0.0.1:{bare}", json=BODY)).status_code == 502
    assert len(_prompts(backend)) == 3


# Pools with an external picker: the relay sends their requests.


@asynccontextmanager
async def _relayed(
    gateway: Gateway, policy: Json, *, answer: Answer = describe, **tls: ssl.SSLContext
) -> AsyncIterator[dict[str, Backend]]:
    """Endpoints by name, each with its certificate; the picker names all of them, in order."""
    async with (
        serve(answer, tls=tls["a"], name="a") as a,
        serve(answer, tls=tls["b"], name="b") as b,
        serve_ext_proc(as_the_field_does(a.address, b.address)) as picker,
    ):
        given = picked_pool("gpu", a.address, b.address, pickers=[picker.address])
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), given, policy)
        yield {"a": a, "b": b}


@pytest.mark.parametrize("policy", [_known_by(URI), tls_policy("gpu", kind="InferencePool")])
async def test_relay_speaks_tls_with_whom_it_knows(gateway: Gateway, policy: Json) -> None:
    a, b = _context(NAME, URI), _context(NAME, URI)
    async with _relayed(gateway, policy, a=a, b=b) as backends:
        for _ in range(5):
            answer = await _post(gateway)
            assert (answer.status_code, answer.json()["server"]) == (200, "a")
        assert _prompts(backends["a"]) == ["/v1/completions"] * 5
        assert set(backends["a"].asked_names) == {NAME}


async def test_relay_goes_on_to_the_next_endpoint_where_one_is_not_known(gateway: Gateway) -> None:
    async with _relayed(gateway, _known_by(URI), a=_context(NAME), b=_context(URI)) as backends:
        answer = await _post(gateway)
        assert (answer.status_code, answer.json()["server"]) == (200, "b")
        assert _prompts(backends["a"]) == []


@pytest.mark.parametrize(("known", "status"), [(True, b"101"), (False, b"502")])
async def test_relay_joins_websockets_in_tls_with_whom_it_knows(gateway: Gateway, known: bool, status: bytes) -> None:
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        writer.write(await request.beyond())

    made = _context(NAME, URI) if known else _context(NAME, URI, authority=OTHER)
    other = _context(NAME, URI) if known else _context(NAME, URI, authority=OTHER)
    async with (
        _relayed(gateway, _known_by(URI), answer=echo, a=made, b=other) as backends,
        asyncio.timeout(20),
        connect(gateway.port) as (reader, writer),
    ):
        writer.write(b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %b " % status)
        if known:
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
        assert [item.target for item in backends["a"].requests].count("/v1/realtime") == known


async def test_relay_finds_nobody_that_it_knows(gateway: Gateway) -> None:
    other = _context(URI, authority=OTHER)
    async with _relayed(gateway, _known_by(URI), a=_context(NAME), b=other) as backends:
        assert (await _post(gateway)).status_code == 502
        assert [_prompts(backend) for backend in backends.values()] == [[], []]


async def test_pool_whose_external_picker_is_gone_stays_in_tls(gateway: Gateway) -> None:
    rules, policy = route("llm", rule(to_pool("gpu"))), tls_policy("gpu", kind="InferencePool")
    async with serve(tls=_context(NAME), name="a") as a:
        given = picked_pool("gpu", a.address, pickers=[], mode="FailOpen")
        await _serves(gateway, rules, given, policy)
        answer = await _post(gateway)
        assert (answer.status_code, answer.json()["server"]) == (200, "a")
    async with serve(tls=_context(NAME, authority=OTHER), name="b") as b:
        given = picked_pool("gpu", b.address, pickers=[], mode="FailOpen")
        await _serves(gateway, rules, given, policy)
        assert ((await _post(gateway)).status_code, _prompts(b)) == (502, [])


@pytest.mark.parametrize(("wanted", "listed"), [(URI, ["m-a", "m-b"]), (URI + "/more", ["m-a"])])
async def test_models_of_pools_in_tls_are_listed_by_whom_is_known(
    gateway: Gateway, wanted: str, listed: list[str]
) -> None:
    by_name = [
        rule(to_pool(name), matches=[{"headers": [{"name": "X-Gateway-Model-Name", "value": name}]}]) for name in "ab"
    ]
    async with (
        serve(tls=_context(URI), name="a") as a,
        serve(tls=_context(URI), name="b") as b,
        serve_ext_proc(as_the_field_does(a.address, b.address)) as picker,
    ):
        a.models, b.models = ("m-a",), ("m-b",)
        given = [picked_pool(name, at.address, pickers=[picker.address]) for name, at in (("a", a), ("b", b))]
        policies = [_known_by(URI, target="a"), _known_by(wanted, target="b")]
        await _serves(gateway, route("llm", *by_name), *given, *policies)

        async def are_listed() -> bool:
            async with client_of(gateway) as http:
                answer = await http.get("/v1/models")
            found = [model["id"] for model in answer.json()["data"]]
            return found == listed and len(b.asked_names) > 0

        await eventually(are_listed)
        assert picker.stages == []


async def test_large_bodies_pass_relay_and_dialer(gateway: Gateway) -> None:
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(request.body))

    certificate = _context(URI)
    async with _relayed(gateway, _known_by(URI), answer=echo, a=certificate, b=certificate):
        answer = await _post(gateway, prompt="x" * 3_000_000)
        assert (answer.status_code, len(answer.json()["prompt"])) == (200, 3_000_000)


async def test_client_does_not_say_where_the_relay_connects(gateway: Gateway) -> None:
    async with serve(name="a") as a, serve_ext_proc(as_the_field_does(a.address)) as picker:
        given = picked_pool("gpu", a.address, pickers=[picker.address])
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), given)
        async with client_of(gateway) as http:
            answer = await http.post("/", json=BODY, headers={"x-infergate-dialed": "run/dial/other"})
    assert (answer.status_code, answer.json()["server"]) == (200, "a")


# The dialer itself.


async def test_dialer_that_hangs_is_started_again(gateway: Gateway) -> None:
    async with serve(tls=_context(URI)) as backend:
        await _serves(gateway, route("llm", rule(to_pool("gpu"))), pool("gpu", backend.address), _known_by(URI))
        before = gateway.data_plane.dialer_pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        await until(lambda: gateway.data_plane.dialer_pid not in (before, None), seconds=60)

        async def is_served() -> bool:
            return (await _post(gateway)).status_code == 200

        await eventually(is_served)
