"""Requests whose model stands for another one: what the model server gets, and what the client gets back."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run, client_of
from tests.nginx.http2 import serve_http2
from tests.nginx.resources import Json, model_rewrite, picker_policy, pool, renamed, route, rule, to_pool
from tests.nginx.servers import Backend, Request, close, nobody, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

CHAT = "/v1/chat/completions"
CONDITION = {
    "path": {"type": "PathPrefix", "value": "/"},
    "headers": [{"name": "X-Gateway-Model-Name", "value": "chat"}],
}
STREAM = b'data: {"id":"1","model":"%b","choices":[{"delta":{"content":"\\"model\\":\\"%b\\""}}]}\n\n'


class Servers:
    """Model servers whose answer a test says."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.pieces: list[bytes] = []
        """Of the body; without one, a completion."""
        self.head: list[str] = []
        self.pause = asyncio.Event()
        """Set while pieces are to follow each other at once."""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        model = _model_of(request)
        if not self.pieces:
            shown = {"id": request.server, "object": "chat.completion", "model": model, "choices": [{"model": model}]}
            writer.write(response(json.dumps(shown).encode(), "Content-Type: application/json"))
            return
        writer.write("\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *self.head, "", ""]).encode())
        for piece in self.pieces:
            await self.pause.wait()
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    def says(self, *pieces: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.pieces = list(pieces)
        more = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.head = [f"Content-Type: {content_type}", *more]
        self.pause.set()


def _model_of(request: Request) -> str:
    try:
        return str(json.loads(request.body)["model"])
    except (TypeError, ValueError, KeyError):
        return ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[tuple[Gateway, Servers]]:
    servers = Servers()
    async with AsyncExitStack() as stack:
        for name in ("gpu", "second", "first", "broken", "fallen"):
            answer = close if name in ("broken", "fallen") else servers.answer
            servers.backends[name] = await stack.enter_async_context(serve(answer, name=name))
        dead = [stack.enter_context(nobody()) for _ in range(3)]
        address = {name: backend.address for name, backend in servers.backends.items()}
        gateway = await stack.enter_async_context(run(root, nginx))
        await gateway.apply(
            "routes.yaml",
            pool("gpu", address["gpu"]),
            pool("first", address["first"]),
            pool("second", address["second"]),
            pool("shaky", address["gpu"], address["broken"]),
            pool("other", address["gpu"], address["fallen"]),
            picker_policy("gpu", explain=True, usage=True),
            model_rewrite("names", "gpu", renamed("food-review", **{"food_review_1": 9, "food_review_2": 1})),
            model_rewrite("alias", "gpu", renamed("ü x", "chat", target=1), renamed("long", **{"x" * 200: 1})),
            model_rewrite("sides", "gpu", renamed("sides", left=1, right=1), sticky="X-User"),
            model_rewrite("left", "first", renamed("assistant", small=1)),
            model_rewrite("right", "second", renamed("assistant", large=1)),
            model_rewrite("shaky", "shaky", renamed("food", a=1, b=1)),
            model_rewrite("other", "other", renamed("food", a=1, b=1)),
            route("other", rule(to_pool("other")), hostnames=["fallen.example"]),
            route("gpu", rule(to_pool("gpu")), hostnames=["gpu.example"]),
            route("shaky", rule(to_pool("shaky")), hostnames=["broken.example"]),
            {
                **route(
                    "users", rule(to_pool("first", weight=1), to_pool("second", weight=1)), hostnames=["users.example"]
                ),
                "metadata": {"name": "users", "annotations": {"infergate.dev/sticky-header": "X-User"}},
            },
            pool("dead", *dead),
            model_rewrite("dead", "dead", renamed("chat", target=1)),
            route("dead", rule(to_pool("dead")), hostnames=["dead.example"]),
            route(
                "long",
                rule(to_pool("dead", weight=1), to_pool("dead", weight=1), matches=[CONDITION]),
                hostnames=["long.example"],
            ),
            route("short", rule(to_pool("gpu"), timeouts={"request": "500ms"}), hostnames=["short.example"]),
            route("two", rule(to_pool("first", weight=90), to_pool("second", weight=10)), hostnames=["two.example"]),
        )
        await gateway.knows("default/shaky", address["gpu"], address["broken"])
        yield gateway, servers


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(running: tuple[Gateway, Servers]) -> Gateway:
    return running[0]


@pytest_asyncio.fixture(loop_scope="module")
async def servers(running: tuple[Gateway, Servers]) -> Servers:
    servers = running[1]
    servers.pieces = []
    for backend in servers.backends.values():
        backend.requests.clear()
    return servers


async def _ask(
    http: httpx.AsyncClient, body: bytes | Json, *, host: str = "gpu.example", path: str = CHAT, **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"host": host, "content-type": "application/json"} | {
        name.replace("_", "-"): it for name, it in headers.items()
    }
    return await http.post(path, content=content, headers=sent)


def _sent(servers: Servers, name: str = "gpu") -> Request:
    (request,) = servers.backends[name].requests
    return request


@pytest.mark.parametrize(
    ("body", "arrives"),
    [
        (b'{"model":"chat"}', b'{"model":"target"}'),
        (
            b' {"x":1.50,\n "model" :\t"chat" , "messages":[] }\n',
            b' {"x":1.50,\n "model" :\t"target" , "messages":[] }\n',
        ),
        (
            b'{"model":"no","y":{"model":"chat"},"model":"chat"}',
            b'{"model":"no","y":{"model":"chat"},"model":"target"}',
        ),
        (rb'{"mo\u0064el":"ch\u0061t","p":"\"model\":\"chat\""}', rb'{"mo\u0064el":"target","p":"\"model\":\"chat\""}'),
        ('{"model":"ü x","é":"\xff"}'.encode(), '{"model":"target","é":"\xff"}'.encode()),
        (b'{"model":"long","e":"' + b"x" * 3000 + b'"}', b'{"model":"' + b"x" * 200 + b'","e":"' + b"x" * 3000 + b'"}'),
    ],
)
async def test_body_names_the_target_and_is_otherwise_the_same(
    http: httpx.AsyncClient, servers: Servers, body: bytes, arrives: bytes
) -> None:
    answer = await _ask(http, body)
    assert answer.status_code == 200
    assert _sent(servers).body == arrives
    assert _sent(servers).values("content-length") == [str(len(arrives))]


@pytest.mark.parametrize(
    "body",
    [b'{"model":"other"}', b'{"model":3}', b'{"model":" chat"}', b'{"model":"chat "}', b'{"model":"chat"', b"", b"[]"],
)
async def test_other_bodies_stay(http: httpx.AsyncClient, servers: Servers, body: bytes) -> None:
    await _ask(http, body)
    assert _sent(servers).body == body


@pytest.mark.parametrize("size", [1_000, 255_000, 300_000, 1_500_000, 50_000_000])
@pytest.mark.parametrize("is_last", [False, True])
async def test_large_body_is_rewritten(gateway: Gateway, servers: Servers, size: int, is_last: bool) -> None:
    text = b'"messages":"' + b'\xc3\xbc\\"{}' * (size // 6) + b'"'
    body = b"{" + (text + b',"model":"chat"' if is_last else b'"model":"chat",' + text) + b"}"
    async with client_of(gateway, timeout=60) as client:
        answer = await _ask(client, body)
    assert answer.status_code == 200
    assert _sent(servers).body == body.replace(b'"model":"chat"', b'"model":"target"')


@pytest.mark.parametrize("size", [100, 700_000])
@pytest.mark.parametrize("http2", [False, True])
async def test_body_of_unknown_length_is_rewritten(gateway: Gateway, servers: Servers, size: int, http2: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"x":"' + b"y" * size
        yield b'","mod'
        yield b'el":"ch'
        yield b'at"}'

    headers = {"host": "gpu.example", "content-type": "application/json"}
    async with client_of(gateway, http2=http2) as client:
        answer = await client.post(CHAT, content=pieces(), headers=headers)
    assert answer.json()["model"] == "chat"
    assert _sent(servers).body == b'{"x":"' + b"y" * size + b'","model":"target"}'
    assert _sent(servers).values("transfer-encoding") == []


@pytest.mark.parametrize("size", [100, 700_000])
async def test_body_is_rewritten_for_a_pool_of_http2(gateway: Gateway, http: httpx.AsyncClient, size: int) -> None:
    body = b'{"x":"%s","model":"chat"}' % (b"y" * size)
    async with serve_http2() as address:
        made, *slices = pool("two-http", address)
        made["spec"]["appProtocol"] = "kubernetes.io/h2c"
        await gateway.apply(
            "http2.yaml",
            made,
            slices,
            model_rewrite("two-http", "two-http", renamed("chat", target=1)),
            route("two-http", rule(to_pool("two-http")), hostnames=["http2.example"]),
        )
        await gateway.knows("default/two-http", address)
        shown = (await _ask(http, body, host="http2.example")).json()
    assert shown["size"] == len(body) + len("target") - len("chat")
    assert dict(shown["headers"])["content-length"] == str(shown["size"])


@pytest.mark.parametrize("size", [100, 800_000])
async def test_form_is_rewritten(http: httpx.AsyncClient, servers: Servers, size: int) -> None:
    file = b"\x00\xffchat\r\n" * (size // 8)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + file
    form = head + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nchat\r\n--b--\r\n'
    await _ask(http, form, path="/v1/audio/transcriptions", content_type="multipart/form-data; boundary=b")
    assert _sent(servers).body == form.replace(b"\r\n\r\nchat\r\n--b--", b"\r\n\r\ntarget\r\n--b--")


async def test_answer_has_the_name_that_was_asked_for(http: httpx.AsyncClient, servers: Servers) -> None:
    answer = await _ask(http, {"model": "chat"})
    assert answer.json() == {
        "id": "gpu",
        "object": "chat.completion",
        "model": "chat",
        "choices": [{"model": "target"}],
    }


async def test_answer_without_a_rewrite_is_as_it_was(http: httpx.AsyncClient, servers: Servers) -> None:
    servers.says(b'{"model":"target"}')
    answer = await _ask(http, {"model": "other"}, accept_encoding="gzip")
    assert answer.content == b'{"model":"target"}'
    assert _sent(servers).values("accept-encoding") == ["gzip"]


async def test_rewritten_request_asks_for_no_encoding(http: httpx.AsyncClient, servers: Servers) -> None:
    await _ask(http, {"model": "chat"}, accept_encoding="gzip")
    assert _sent(servers).values("accept-encoding") == []


@pytest.mark.parametrize(
    ("content_type", "headers", "body"),
    [
        ("audio/mpeg", {}, b'{"model":"target"}'),
        ("application/json", {"Content_Encoding": "gzip"}, gzip.compress(b'{"model":"target"}')),
    ],
)
async def test_answer_that_cannot_be_read_stays(
    gateway: Gateway, servers: Servers, content_type: str, headers: dict[str, str], body: bytes
) -> None:
    servers.says(body, content_type=content_type, **headers)
    async with (
        client_of(gateway) as client,
        client.stream("POST", CHAT, content=b'{"model":"chat"}', headers={"host": "gpu.example"}) as answer,
    ):
        assert b"".join([piece async for piece in answer.aiter_raw()]) == body


async def test_each_event_has_the_name_that_was_asked_for(http: httpx.AsyncClient, servers: Servers) -> None:
    servers.says(*[STREAM % (b"target", b"target")] * 20, b"data: [DONE]\n\n", content_type="text/event-stream")
    answer = await _ask(http, {"model": "chat", "stream": True})
    assert answer.content == STREAM % (b"chat", b"target") * 20 + b"data: [DONE]\n\n"


async def test_event_that_comes_byte_by_byte_is_restored(http: httpx.AsyncClient, servers: Servers) -> None:
    event = STREAM % (b"target", b"target") + b'event: x\r\ndata: {"response":{"model":"target"}}\r\n\r\n'
    servers.says(*(bytes([byte]) for byte in event), content_type="text/event-stream; charset=utf-8")
    answer = await _ask(http, {"model": "chat", "stream": True})
    assert answer.content == STREAM % (b"chat", b"target") + b'event: x\r\ndata: {"response":{"model":"chat"}}\r\n\r\n'


async def test_events_leave_as_they_come(gateway: Gateway, servers: Servers) -> None:
    event = STREAM % (b"target", b"")
    servers.says(event, event, content_type="text/event-stream")
    async with (
        client_of(gateway) as client,
        client.stream(
            "POST", CHAT, content=b'{"model":"chat","stream":true}', headers={"host": "gpu.example"}
        ) as answer,
    ):
        pieces = answer.aiter_raw()
        seen = b""
        servers.pause.clear()
        while len(seen) < len(STREAM % (b"chat", b"")):
            seen += await asyncio.wait_for(anext(pieces), 5)
        servers.pause.set()
        seen += b"".join([piece async for piece in pieces])
    assert seen == STREAM % (b"chat", b"") * 2


@pytest.mark.parametrize(("size", "pod"), [(1, "broken"), (400_000, "fallen")])
async def test_retry_keeps_its_target(http: httpx.AsyncClient, servers: Servers, size: int, pod: str) -> None:
    for number in range(20):
        asked = {"model": "food", "messages": f"{number}{'x' * size}"}
        answer = await _ask(http, asked, host=f"{pod}.example")
        assert (answer.status_code, answer.json()["model"]) == (200, "food")
    tried = {request.body: request for request in servers.backends[pod].requests}
    served = [request.body for request in servers.backends["gpu"].requests]
    assert tried
    assert len(served) == 20
    assert tried.keys() <= set(served)


async def test_weights_hold_through_the_gateway(http: httpx.AsyncClient, servers: Servers) -> None:
    for _ in range(200):
        await _ask(http, {"model": "food-review"})
    counts = Counter(_model_of(request) for request in servers.backends["gpu"].requests)
    assert counts["food-review-1"] == pytest.approx(180, abs=2)
    assert counts["food-review-2"] == pytest.approx(20, abs=2)


async def test_alias_is_each_pools_own(http: httpx.AsyncClient, servers: Servers) -> None:
    for _ in range(300):
        assert (await _ask(http, {"model": "assistant"}, host="two.example")).json()["model"] == "assistant"
    found = {name: Counter(map(_model_of, servers.backends[name].requests)) for name in ("first", "second")}
    assert found["first"].keys() == {"small"}
    assert found["second"].keys() == {"large"}
    assert found["second"]["large"] == pytest.approx(30, abs=25)


async def test_user_stays_on_one_side(http: httpx.AsyncClient, servers: Servers) -> None:
    users = [f"user-{number}" for number in range(40)]
    for user in users * 3:
        await _ask(http, {"model": "sides"}, x_user=user)
    seen = [_model_of(request) for request in servers.backends["gpu"].requests]
    assert seen[:40] == seen[40:80] == seen[80:]
    assert set(seen) == {"left", "right"}


async def test_user_stays_in_one_pool(http: httpx.AsyncClient, servers: Servers) -> None:
    users = [f"user-{number}" for number in range(40)] * 3
    for user in users:
        await _ask(http, {"model": "assistant"}, host="users.example", x_user=user)
    sides = {
        name: {request.values("x-user")[0] for request in servers.backends[name].requests}
        for name in ("first", "second")
    }
    assert sides["first"]
    assert sides["second"]
    assert not sides["first"] & sides["second"]


async def test_request_without_a_user_is_drawn(http: httpx.AsyncClient, servers: Servers) -> None:
    for _ in range(40):
        await _ask(http, {"model": "assistant"}, host="users.example")
    assert all(servers.backends[name].requests for name in ("first", "second"))


async def test_log_metrics_and_explanation_tell_both_names(
    gateway: Gateway, http: httpx.AsyncClient, servers: Servers
) -> None:
    answer = await _ask(http, {"model": "chat"}, x_request_id="both-names", x_infergate_explain="1")
    why = json.loads(answer.headers["x-infergate-explain"])
    line = await gateway.logged("both-names")
    assert (why["model"], why["target"]) == ("chat", "target")
    assert (line["model"], line["target_model"]) == ("chat", "target")
    metrics = await gateway.metrics()
    name = 'infergate_rewritten_requests_total{model="chat",pool="default/gpu",target_model="target"}'
    assert metrics[name] >= 1


async def test_tokens_of_a_rewritten_request_are_logged(
    gateway: Gateway, http: httpx.AsyncClient, servers: Servers
) -> None:
    servers.says(b'{"model":"target","usage":{"prompt_tokens":7,"completion_tokens":2}}')
    await _ask(http, {"model": "chat"}, x_request_id="with-tokens")
    line = await gateway.logged("with-tokens")
    assert (line["target_model"], line["prompt_tokens"], line["completion_tokens"]) == ("target", 7, 2)


async def test_header_of_a_client_does_not_choose_the_target(http: httpx.AsyncClient, servers: Servers) -> None:
    await _ask(http, {"model": "chat"}, x_infergate_target="evil", x_infergate_rewrites="@evil")
    assert _model_of(_sent(servers)) == "target"


@pytest.mark.parametrize("host", ["dead.example", "long.example"])
async def test_longest_way_to_a_failure_fits_nginx(gateway: Gateway, http: httpx.AsyncClient, host: str) -> None:
    """The model, the rule, its weight, three picks with three pods and the error are ten internal redirects."""
    answer = await _ask(http, {"model": "chat"}, host=host)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "endpoints_failed")
    line = await gateway.logged(answer.headers["x-request-id"])
    assert (line["tries"], line["target_model"]) == (3, "target")


async def test_stream_ends_at_the_deadline_of_its_rule(gateway: Gateway, servers: Servers) -> None:
    """One of many seconds, without a pause that would end it."""
    servers.says(*[STREAM % (b"target", b"")] * 500_000, content_type="text/event-stream")

    async def read() -> None:
        headers = {"host": "short.example"}
        async with (
            client_of(gateway) as client,
            client.stream("POST", CHAT, content=b'{"model":"chat"}', headers=headers) as answer,
        ):
            async for _ in answer.aiter_raw():
                pass

    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await read()
