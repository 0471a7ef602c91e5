"""Which rule a request meets by the model that it names."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.gateway import Gateway, Run
from tests.nginx.resources import Json, header, pool, request_headers, route, rule, service, to_pool, to_service
from tests.nginx.servers import Request, connect, exchange, nobody, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("llama", "qwen", "pattern", "rest", "audio", "audio-llama", "tier", "post")
CHAT = "/v1/chat/completions"


def _model(
    value: str, *, kind: str = "Exact", name: str = "X-Gateway-Model-Name", path: str = "/", **more: object
) -> Json:
    headers = [{"type": kind, "name": name, "value": value}]
    return {"path": {"type": "PathPrefix", "value": path}, "headers": headers, **more}


def _rules(reverse: bool) -> list[Json]:
    rules = [
        rule(to_pool("llama"), matches=[_model("llama"), _model("meta/llama 3")]),
        rule(to_service("qwen"), matches=[_model("qwen", name="x-gateway-MODEL-name")]),
        rule(to_pool("pattern"), matches=[_model("gpt-.*|.*-any|", kind="RegularExpression")]),
        rule(to_pool("post"), matches=[_model("qwen", method="PUT")]),
        rule(to_service("audio"), path="/v1/audio"),
        rule(to_service("audio-llama"), matches=[_model("llama", path="/v1/audio/llamas")]),
        rule(to_service("tier"), path="/v1/audio/llamas"),
    ]
    return rules[::-1] if reverse else rules


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        backends = {name: await stack.enter_async_context(serve(name=name)) for name in NAMES}
        gateway = await stack.enter_async_context(run(root, nginx))
        await gateway.apply(
            "routes.yaml",
            *(pool(name, backends[name].address) for name in NAMES),
            *(service(name, backends[name].address) for name in NAMES),
            route("forth", *_rules(reverse=False), hostnames=["forth.example"]),
            route("back", *_rules(reverse=True), hostnames=["back.example"]),
            route(
                "filled",
                rule(to_pool("llama"), matches=[_model("llama")]),
                rule(to_service("rest"), filters=[request_headers(add=[header("X-Gateway-Model-Name", "more")])]),
                hostnames=["filled.example"],
            ),
            route("plain", rule(to_pool("rest")), hostnames=["plain.example"]),
        )
        yield gateway


async def _ask(
    http: httpx.AsyncClient, body: bytes | Json, *, host: str = "forth.example", path: str = CHAT, **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"host": host, "content-type": "application/json"} | {
        name.replace("_", "-"): it for name, it in headers.items()
    }
    return await http.post(path, content=content, headers=sent)


def _seen(answer: httpx.Response) -> tuple[str, str]:
    """The backend, and the model's header there."""
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    return shown["server"], ",".join(value for name, value in shown["headers"] if name == "x-gateway-model-name")


@pytest.mark.parametrize(
    ("body", "server", "model"),
    [
        (b'{"model":"llama"}', "llama", "llama"),
        (b'{"messages":[{"role":"user","content":"hi"}],"stream":false,"model":"llama"}', "llama", "llama"),
        (b' \r\n\t{ "n" : -1.5e+3 ,\n"model"\t:\r"llama" , "x" : null } \n', "llama", "llama"),
        (rb'{"mo\u0064el":"ll\u0061m\u0061"}', "llama", "llama"),
        (rb'{"model":"meta\/llama 3"}', "llama", "meta/llama 3"),
        ('{"model":"ü-any"}'.encode(), "pattern", "ü-any"),
        (rb'{"model":"\u00fc\ud83d\ude00-any"}', "pattern", "ü😀-any"),
        (b'{"model":"qwen","model":"llama"}', "llama", "llama"),
        (b'{"model":3,"model":"llama"}', "llama", "llama"),
        (b'{"x":{"model":"qwen"},"y":[{"model":"qwen"}],"model":"llama","z":{"model":"qwen"}}', "llama", "llama"),
        (rb'{"x":"\"model\":\"qwen\"\\","model":"llama","y":"}\\\\"}', "llama", "llama"),
        (b'\xef\xbb\xbf{"model":"llama"}', "llama", "llama"),
        (b'{"model":"qwen"}', "qwen", "qwen"),
        (b'{"model":"gpt-4"}', "pattern", "gpt-4"),
        (b'{"prompt":[1,2,3,[4]],"e":{},"f":[],"model":"x-any","g":true}', "pattern", "x-any"),
    ],
)
@pytest.mark.parametrize("host", ["forth.example", "back.example"])
async def test_model_in_a_body_chooses_the_rule(
    http: httpx.AsyncClient, body: bytes, server: str, model: str, host: str
) -> None:
    answer = await _ask(http, body, host=host)
    found = answer.json()
    assert _seen(answer)[0] == server
    assert found["sha256"] == hashlib.sha256(body).hexdigest()
    sent = next(value for name, value in found["headers"] if name == "x-gateway-model-name")
    assert sent.encode("latin-1").decode() == model


@pytest.mark.parametrize(
    "body",
    [b'{"model":"unknown"}', b'{"model":"Llama"}', b'{"model":"llama "}', b'{"model":null}', b'{"model":["llama"]}',
     b'{"model":"llama","model":null}', b'{"Model":"llama"}', b'{}', b'[{"model":"llama"}]', b'"llama"', b"7", b"",
     rb'{"model":"llama\n"}', rb'{"model":"\ud800"}', b'{"model":"\xff"}', rb'{"model":"gpt-\u0000"}',
     b'{"model":"gpt-4 "}', b'{"model":" x-any"}', b'{ "model":" x-any"}', rb'{"model":"gpt-4\u0020"}'],
)  # fmt: skip
async def test_body_without_a_model_that_a_rule_names_is_404(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await _ask(http, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")


@pytest.mark.parametrize(
    "body",
    [b'{"model":"llama"', b'{"model":"llama"}}', b'{"model":"llama",}', b'{"model" "llama"}', b'{"model":llama}', b"x",
     b'{"model":"llama","x":[}', b'{"model":"llama","x":[1}', b'{"model":"llama","x":01}', b"{model:1}", b" ",
     b'{"model":"llama"} x', b'{"model":"ll\x01ama"}', rb'{"model":"\x"}', b'{"model":"llama","x":"', b"[1],[2]",
     b'{"model":"llama","x":' + b"[" * 5000 + b"]" * 5000 + b"}"],
)  # fmt: skip
async def test_broken_body_is_400_where_every_rule_wants_a_model(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await _ask(http, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    assert answer.headers["content-type"] == "application/json"


async def test_broken_body_meets_the_rule_that_wants_no_model(http: httpx.AsyncClient) -> None:
    assert _seen(await _ask(http, b'{"model":"llama"', host="filled.example"))[0] == "rest"


@pytest.mark.parametrize("inside", [b"{bad}", b"[1 2]", b'{"a":nul}', b'{"a" 1}'])
async def test_what_is_broken_within_a_member_is_left_to_the_model_server(
    gateway: Gateway, http: httpx.AsyncClient, inside: bytes
) -> None:
    """The picker, which reads the whole, takes the model from NGINX."""
    answer = await _ask(http, b'{"x":' + inside + b',"model":"llama"}')
    assert _seen(answer) == ("llama", "llama")
    assert (await gateway.logged(answer.headers["x-request-id"]))["model"] == "llama"


async def test_body_that_is_no_json_matches_no_model(http: httpx.AsyncClient) -> None:
    answer = await _ask(http, b"llama", content_type="text/plain")
    assert answer.status_code == 404


@pytest.mark.parametrize("spelling", ["X-Gateway-Model-Name", "x-gateway-model-name", "X-Gateway-Base-Model-Name"])
@pytest.mark.parametrize("host", ["filled.example", "plain.example"])
async def test_header_of_a_client_neither_counts_nor_arrives(http: httpx.AsyncClient, spelling: str, host: str) -> None:
    answer = await http.post(CHAT, content=b"{}", headers={"host": host, spelling: "llama"})
    assert _seen(answer)[0] == "rest"
    names = {name: value for name, value in answer.json()["headers"] if name.startswith("x-gateway")}
    assert names == ({"x-gateway-model-name": "more"} if host == "filled.example" else {})


@pytest.mark.parametrize("host", ["forth.example", "plain.example"])
async def test_header_of_a_client_is_no_model_for_the_picker(
    gateway: Gateway, http: httpx.AsyncClient, host: str
) -> None:
    """Not in a body without a model either, where it would decide on priorities and adapters."""
    answer = await http.post("/v1/audio/x", content=b"{}", headers={"host": host, "X-Gateway-Model-Name": "llama"})
    assert (await gateway.logged(answer.headers["x-request-id"]))["model"] == ""


async def test_repeated_header_of_a_client_is_overwritten(gateway: Gateway) -> None:
    body = b'{"model":"llama"}'
    head = "POST / HTTP/1.1\r\nHost: forth.example\r\nConnection: close\r\nx-gateway-model-name: qwen\r\n"
    head += f"X-GATEWAY-MODEL-NAME: qwen\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await exchange(gateway.port, head.encode() + body)
    assert b'["x-gateway-model-name", "llama"]' in answer
    assert b"qwen" not in answer


@pytest.mark.parametrize("host", ["forth.example", "back.example"])
@pytest.mark.parametrize(
    ("path", "model", "server"),
    [
        ("/v1/audio/speech", "llama", "audio"),
        ("/v1/audio", "qwen", "audio"),
        ("/v1/audio/llamas", "llama", "audio-llama"),
        ("/v1/audio/llamas/x", "qwen", "tier"),
        ("/v1/audios", "llama", "llama"),
    ],
)
async def test_precedence_is_that_of_headers(
    http: httpx.AsyncClient, host: str, path: str, model: str, server: str
) -> None:
    assert _seen(await _ask(http, {"model": model}, host=host, path=path))[0] == server


async def test_method_and_model_count_together(http: httpx.AsyncClient) -> None:
    answer = await http.put("/", content=b'{"model":"qwen"}', headers={"host": "forth.example"})
    assert _seen(answer)[0] == "post"


@pytest.mark.parametrize(
    "size", [4_000, 100_000, 259_999, 260_000, 262_144, 262_145, 1_000_000, 20_000_000, 50_000_000]
)
async def test_model_behind_a_large_prompt(http: httpx.AsyncClient, size: int) -> None:
    text = 'a "quoted" {line}\\\n' * (size // 30)
    rest = json.dumps({"messages": [{"content": text}], "n": [1, 2], "model": "llama", "text": text[:200]})[1:]
    body = f'{{"a":"{"x" * (size - len(rest) - 8)}",{rest}'.encode()
    assert len(body) == size
    answer = await _ask(http, body)
    assert _seen(answer)[0] == "llama"
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("shift", range(40))
async def test_pieces_of_a_file_are_cut_anywhere(http: httpx.AsyncClient, shift: int) -> None:
    """A file is read in pieces of 64 KB: what stands there moves over the cut."""
    start = b'{"prompt":"' + b"x" * (65536 * 5 - 40 + shift)
    for tail in (
        rb'\\\"\\\\","model" : "ll\u0061ma","z":1.5}',
        rb'","y":[{"a":"\\"}],"z":-12.5e3,"m\u006fdel":"llama"}',
    ):
        assert _seen(await _ask(http, start + tail))[0] == "llama"


async def test_chunked_body_is_read(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"mod'
        yield b'el":"lla'
        yield b'ma"}'

    answer = await http.post(CHAT, content=pieces(), headers={"host": "forth.example"})
    assert _seen(answer) == ("llama", "llama")


def _form(*parts: tuple[str, bytes], boundary: bytes = b"x-Boundary'()+_,./:=?9") -> tuple[bytes, str]:
    body = b"".join(
        b"--"
        + boundary
        + b"\r\n"
        + f"Content-Disposition: form-data; {head}".encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for head, content in parts
    )
    return body + b"--" + boundary + b"--\r\n", f'multipart/form-data; boundary="{boundary.decode()}"'


FILE = 'name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


@pytest.mark.parametrize(
    "parts",
    [
        [('name="model"', b"llama")],
        [(FILE, b"\x00\xff\r\n--x" * 9), ('name="model"', b"llama")],
        [('name="model"', b"qwen"), ('name="model"', b"llama"), ('name="models"', b"qwen")],
        [('name="model"', b"llama"), ('name="model"; filename="model"', b"qwen")],
        [('name="model"', b"llama"), (FILE, b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nqwen')],
        [("name=model", b"llama"), ('name="prompt"', b"")],
    ],
)
async def test_model_of_a_form_chooses_the_rule(http: httpx.AsyncClient, parts: list[tuple[str, bytes]]) -> None:
    body, kind = _form(*parts)
    answer = await _ask(http, body, path="/v1/images/edits", content_type=kind)
    assert _seen(answer) == ("llama", "llama")
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [250_000, 300_000, 5_000_000, 50_000_000])
async def test_model_of_a_form_behind_a_large_file(http: httpx.AsyncClient, size: int) -> None:
    body, kind = _form((FILE, b"\r\n--x-Bound" * (size // 11)), ('name="model"', b"llama"))
    answer = await _ask(http, body, path="/v1/images/edits", content_type=kind)
    assert _seen(answer) == ("llama", "llama")
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("shift", range(60))
async def test_parts_of_a_form_are_cut_anywhere(http: httpx.AsyncClient, shift: int) -> None:
    body, kind = _form((FILE, b"x" * (65536 * 5 - 220 + 2 * shift)), ('name="model"', b"llama"), ('name="n"', b"1"))
    assert _seen(await _ask(http, body, content_type=kind))[0] == "llama"


async def test_form_as_a_library_writes_it(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/images/edits", data={"model": "llama"}, files={"image": b"\x89PNG"}, headers={"host": "forth.example"}
    )
    assert _seen(answer) == ("llama", "llama")


async def test_form_without_an_end_is_400(http: httpx.AsyncClient) -> None:
    body, kind = _form(('name="model"', b"llama"))
    answer = await _ask(http, body[:-6], content_type=kind)
    assert answer.json()["error"]["code"] == "invalid_body"


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/v1/models/llama", "llama"),
        ("/v1/models/meta%2Fllama%203", "llama"),
        ("/v1/models/meta/llama%203?a=b", "llama"),
        ("/v1/models/gpt-4", "pattern"),
        ("/v1/realtime?model=gpt%2D4", "pattern"),
        ("/v1/realtime?model=qwen&model=gpt-4", "pattern"),
        ("/openai/v1/models/llama", "llama"),
        ("/openai/v1/models/meta/llama%203", "llama"),
        ("/a/b/v1/realtime?model=llama", "llama"),
    ],
)
async def test_model_in_the_path_or_the_query_chooses_the_rule(http: httpx.AsyncClient, path: str, server: str) -> None:
    assert _seen(await http.get(path, headers={"host": "forth.example"}))[0] == server


@pytest.mark.parametrize(
    "target",
    ["/v1/models/gpt-%ff", "/v1/models/gpt-%0a", "/v1/models/gpt-4%20", "/v1/realtime?model=gpt-%ff", "/v1/models/",
     "/v1/realtime?model", "/v1/realtime?__proto__=gpt-4", "/v1/realtimes?model=gpt-4"],
)  # fmt: skip
async def test_path_or_query_that_no_header_can_say_names_no_model(gateway: Gateway, target: str) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: forth.example\r\nConnection: close\r\n\r\n"
    assert (await exchange(gateway.port, head.encode())).startswith(b"HTTP/1.1 404 ")


async def test_connection_of_realtime_is_routed_by_its_query(gateway: Gateway) -> None:
    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        writer.write(await request.beyond())

    async with serve(upgrade) as spoken:
        await gateway.apply(
            "spoken.yaml",
            pool("spoken", spoken.address),
            route("spoken", rule(to_pool("spoken"), matches=[_model("voice")]), hostnames=["spoken.example"]),
        )
        head = "GET /v1/realtime?model=voice HTTP/1.1\r\nHost: spoken.example\r\nConnection: Upgrade\r\n"
        async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
            writer.write(f"{head}Upgrade: websocket\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(b"frames")
            assert await reader.readexactly(6) == b"frames"


async def test_list_of_models_has_no_model(http: httpx.AsyncClient) -> None:
    listed = await http.get("/v1/models", headers={"host": "forth.example"})
    assert (listed.status_code, listed.json()) == (200, {"object": "list", "data": []})
    assert _seen(await http.get("/v1/models", headers={"host": "filled.example"}))[0] == "rest"


async def test_body_above_the_limit_is_413(http: httpx.AsyncClient, gateway: Gateway) -> None:
    head = f"POST / HTTP/1.1\r\nHost: forth.example\r\nConnection: close\r\nContent-Length: {10**9}\r\n\r\n"
    assert (await exchange(gateway.port, head.encode())).startswith(b"HTTP/1.1 413 ")


async def test_longest_way_to_a_failure_fits_nginx(gateway: Gateway, http: httpx.AsyncClient) -> None:
    """The model, the rule, its session, three picks with three pods and the error are ten internal redirects."""
    with ExitStack() as stack:
        dead = [stack.enter_context(nobody()) for _ in range(4)]
        shares = [to_pool("dead", weight=1), to_pool("dead", weight=1)]
        split = rule(*shares, matches=[_model("llama")], sessionPersistence={})
        await gateway.apply("dead.yaml", pool("dead", *dead), route("dead", split, hostnames=["dead.example"]))
        await gateway.knows("default/dead", *dead)
        answer = await _ask(http, {"model": "llama"}, host="dead.example")
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")


def _adapters(name: str, base: str, *adapters: str) -> Json:
    """A ConfigMap that names the adapters of a base model."""
    metadata = {"name": name, "labels": {"inference.llm-d.ai/ipp-managed": "true"}}
    data = {"baseModel": base, "adapters": json.dumps(adapters)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def based(gateway: Gateway) -> None:
    by_base = _model("llama", name="X-Gateway-Base-Model-Name")
    any_base = _model("q.*|", name="X-Gateway-Base-Model-Name", kind="RegularExpression")
    await gateway.apply(
        "adapters.yaml",
        _adapters("llama", "llama", "food-review", "__proto__", "ü"),
        _adapters("qwen", "qwen", "toString"),
        route(
            "based",
            rule(to_pool("llama"), matches=[by_base]),
            rule(to_service("qwen"), matches=[any_base]),
            hostnames=["based.example"],
        ),
    )


@pytest.mark.usefixtures("based")
@pytest.mark.parametrize(
    ("model", "base"),
    [("food-review", "llama"), ("llama", "llama"), ("__proto__", "llama"), ("ü", "llama"), ("qwen", "qwen"),
     ("toString", "qwen")],
)  # fmt: skip
async def test_adapter_is_routed_by_its_base_model(http: httpx.AsyncClient, model: str, base: str) -> None:
    answer = await _ask(http, {"model": model}, host="based.example")
    assert _seen(answer)[0] == base
    assert ["x-gateway-base-model-name", base] in answer.json()["headers"]


@pytest.mark.usefixtures("based")
@pytest.mark.parametrize("model", ["unknown", "constructor", "hasOwnProperty", "valueOf", ""])
async def test_model_without_a_known_base_matches_none(http: httpx.AsyncClient, model: str) -> None:
    assert (await _ask(http, {"model": model}, host="based.example")).status_code == 404


@pytest.mark.usefixtures("based")
async def test_base_model_follows_its_config_map(gateway: Gateway, http: httpx.AsyncClient) -> None:
    await gateway.apply("more.yaml", _adapters("more", "llama", "late"))
    answer = await _ask(http, {"model": "late"}, host="based.example", connection="close")
    assert _seen(answer)[0] == "llama"
    await gateway.apply("more.yaml")
    assert (await _ask(http, {"model": "late"}, host="based.example")).status_code == 404
