"""What answers say of their tokens, read while they pass."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio

from controller.simulator.pods import Simulation
from controller.simulator.pods import serve as simulate
from controller.simulator.settings import PodSettings
from tests.nginx.gateway import Gateway, eventually
from tests.nginx.resources import Json, picker_policy, pool, route, rule, to_pool
from tests.nginx.servers import Backend, Request, connect, response, serve

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

MOST_PIECES = 2000
"""As in nginx/njs/usage.js."""
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
CHAT = "/read/v1/chat/completions"
MESSAGES = "/read/v1/messages"
WHOLE = (
    b'{"model":"m","choices":[{"message":{"content":"he said \\"usage\\":{\\"prompt_tokens\\":1}"}}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}},"timings":{"a":1}}'
)
EVENTS = (
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[],"usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": null}}\n\n',
    b"data: [DONE]\n\n",
)
EMBEDDINGS = b'{"data":[%s0],"usage":{"prompt_tokens":7,"total_tokens":7}}' % (b"0.1," * 90_000)
MESSAGE_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"1","usage":{"input_tokens":4,'
    b'"cache_read_input_tokens":8,"cache_creation_input_tokens":1,"output_tokens":1}}}\n\n',
    *(b'event: content_block_delta\ndata: {"delta":{"text":"%s"}}\n\n' % (b"x" * 500) for _ in range(20)),
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":40}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
RESPONSE_EVENTS = (
    b'event: response.created\ndata: {"response":{"usage":null}}\n\n',
    b'event: response.completed\ndata: {"response":{"output":[],"usage":{"input_tokens":5,'
    b'"input_tokens_details":{"cached_tokens":2},"output_tokens":6,"total_tokens":11}}}\n\n',
)
ASKS = {"stream": True, "stream_options": {"include_usage": True}}
MESSAGE = (
    b'{"id":"1","type":"message","role":"assistant","model":"m","content":[{"type":"tool_use","id":"t","name":"n",'
    b'"input":{"usage":{"input_tokens":1,"output_tokens":1}}}],"stop_reason":"tool_use","stop_sequence":null,'
    b'"usage":{"input_tokens":4,"cache_creation_input_tokens":1,"cache_read_input_tokens":8,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":1},"output_tokens":40,"service_tier":"standard"}}'
)
RESPONSE = (
    b'{"id":"r","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text",'
    b'"text":"%s"}]}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":6,'
    b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":11},"user":null,"metadata":{"a":"%s"}}'
) % (b"x" * 9000, b"y" * 500)
COMPLETION = (
    b'{"id":"c","object":"text_completion","choices":[{"text":"%s"}],'
    b'"usage":{"prompt_tokens":4,"total_tokens":13,"completion_tokens":9,"prompt_tokens_details":null}}'
) % (b"x" * 9000)
COMPLETION_EVENTS = (
    *(
        b'data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":4,"completion_tokens":%d}}\n\n' % n
        for n in range(30)
    ),
    b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9,'
    b'"prompt_tokens_details":{"cached_tokens":1}}}\n\n'
    b"data: [DONE]\n\n",
)


@dataclass
class Pod:
    """A backend that answers with what a test says."""

    pieces: tuple[bytes, ...] = ()
    headers: tuple[str, ...] = ()
    status: str = "200 OK"
    served: Backend = field(default_factory=Backend)

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if len(self.pieces) == 1:
            writer.write(response(self.pieces[0], *self.headers, status=self.status))
            return
        lines = (f"HTTP/1.1 {self.status}", "Transfer-Encoding: chunked", *self.headers)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for piece in (*self.pieces, b""):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(gateway: Gateway) -> AsyncIterator[Pod]:
    """Behind two pools, of which one has its usage read."""
    pod = Pod()
    async with serve(pod.answer) as pod.served:
        await gateway.apply(
            "routes.yaml",
            pool("read", pod.served.address),
            pool("left", pod.served.address),
            picker_policy("read", usage=True),
            route("all", rule(to_pool("read"), path="/read"), rule(to_pool("left"), path="/left")),
        )
        yield pod


async def _logged(gateway: Gateway, http: httpx.AsyncClient, path: str, **body: object) -> Json:
    """The line of a request, which got every byte of its answer."""
    answer = await http.post(path, json={"model": "m", "prompt": "x", **body})
    assert answer.status_code < 500
    return await gateway.logged(answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("path", "asked", "pieces", "told"),
    [
        (CHAT, {}, (WHOLE,), (12, 8, 3)),
        (CHAT, {}, (WHOLE[:90], WHOLE[90:130], WHOLE[130:]), (12, 8, 3)),
        (CHAT, {}, tuple(WHOLE[at : at + 1] for at in range(len(WHOLE))), (12, 8, 3)),
        (CHAT, {}, (EMBEDDINGS,), (7, None, None)),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}}, EVENTS, (12, None, 3)),
        (CHAT, {"stream": True}, EVENTS, (None, None, None)),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}}, EVENTS[:1], (None, None, None)),
        (MESSAGES, {"stream": True}, MESSAGE_EVENTS, (13, 8, 40)),
        (MESSAGES, {}, (b'{"content":[],"usage":{"input_tokens":9,"output_tokens":2}}',), (9, None, 2)),
        (MESSAGES, {}, (MESSAGE,), (13, 8, 40)),
        ("/read/v1/responses", {"stream": True}, RESPONSE_EVENTS, (5, 2, 6)),
        ("/read/v1/responses", {}, (RESPONSE,), (5, 2, 6)),
        ("/read/v1/completions", {}, (COMPLETION,), (4, None, 9)),
        ("/read/v1/completions", ASKS, COMPLETION_EVENTS, (4, 1, 9)),
        ("/read/v1/completions", {"stream": True}, COMPLETION_EVENTS, (None, None, None)),
        (CHAT, {}, (b'{"usage":{"prompt_tokens":"12","completion_tokens":-3}}',), (None, None, None)),
        (CHAT, {}, (b'{"usage":{"prompt_tokens":}}',), (None, None, None)),
        ("/read/v1/models", {}, (WHOLE,), (None, None, None)),
        ("/left/v1/chat/completions", {}, (WHOLE,), (None, None, None)),
    ],
)  # fmt: skip
async def test_tokens_are_logged_and_no_byte_is_changed(
    gateway: Gateway,
    http: httpx.AsyncClient,
    pod: Pod,
    path: str,
    asked: Json,
    pieces: tuple[bytes, ...],
    told: tuple[int | None, ...],
) -> None:
    pod.pieces, pod.headers, pod.status = pieces, (), "200 OK"
    answer = await http.post(path, json={"model": "m", "prompt": "x", **asked})
    assert answer.content == b"".join(pieces)
    line = await gateway.logged(answer.headers["x-request-id"])
    assert tuple(line[name] for name in TOKENS) == told


async def test_tokens_of_a_large_answer_are_those_that_the_relay_reads(
    gateway: Gateway, http: httpx.AsyncClient, pod: Pod
) -> None:
    """A script gives no memory back before the request ends."""
    pod.pieces, pod.headers, pod.status = (b" " * 5_000_000 + WHOLE,), (), "200 OK"
    line = await _logged(gateway, http, CHAT)
    assert [line[name] for name in TOKENS] == ([12, 8, 3] if gateway.mode == "relayed" else [None] * 3)


async def test_answer_with_an_encoding_is_left_alone(gateway: Gateway, http: httpx.AsyncClient, pod: Pod) -> None:
    pod.pieces, pod.headers, pod.status = (gzip.compress(WHOLE),), ("Content-Encoding: gzip",), "200 OK"
    line = await _logged(gateway, http, CHAT)
    assert [line[name] for name in TOKENS] == [None] * 3


async def test_tokens_of_an_error_are_none(gateway: Gateway, http: httpx.AsyncClient, pod: Pod) -> None:
    pod.pieces, pod.headers, pod.status = (WHOLE,), (), "400 Bad Request"
    line = await _logged(gateway, http, CHAT)
    assert [line[name] for name in TOKENS] == [None] * 3


async def test_requests_at_once_have_their_own_tokens(gateway: Gateway, http: httpx.AsyncClient, pod: Pod) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        number = json.loads(request.body)["prompt"]
        writer.write(response(b'{"usage":{"prompt_tokens":%d,"completion_tokens":1}}' % number))

    async with serve(answer) as other:
        await gateway.apply("other.yaml", pool("other", other.address), picker_policy("other", usage=True),
                            route("other", rule(to_pool("other"), path="/other")))  # fmt: skip
        path = "/other/v1/completions"
        lines = await asyncio.gather(*(_logged(gateway, http, path, prompt=number) for number in range(1, 60)))
    assert sorted(line["prompt_tokens"] for line in lines) == list(range(1, 60))


async def test_model_is_logged_as_the_request_names_it(gateway: Gateway, http: httpx.AsyncClient, pod: Pod) -> None:
    pod.pieces, pod.headers, pod.status = (b"{}",), (), "200 OK"
    names = ("llama/3.1-8b", 'a"b\\', "模型", "x" * 300, "a\r\nx-accel-redirect: @no", "")
    told = [(await _logged(gateway, http, "/left/v1/completions", model=name))["model"] for name in names]
    assert told == ["llama/3.1-8b", 'a"b\\', "模型", "", "", ""]


async def test_each_event_arrives_before_the_next_is_sent(gateway: Gateway, pod: Pod) -> None:
    go_on: asyncio.Queue[None] = asyncio.Queue()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (*EVENTS, b""):
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await go_on.get()

    async with serve(answer) as other:
        await gateway.apply("slow.yaml", pool("slow", other.address), picker_policy("slow", usage=True),
                            route("slow", rule(to_pool("slow"), path="/slow")))  # fmt: skip
        body = b'{"model":"m","prompt":"x","stream":true,"stream_options":{"include_usage":true}}'
        async with asyncio.timeout(15), connect(gateway.port) as (reader, writer):
            writer.write(
                b"POST /slow/v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            for event in (*EVENTS, b"0\r\n"):
                await reader.readuntil(event)
                go_on.put_nowait(None)


async def test_stream_that_is_too_long_to_be_read_arrives_whole(
    gateway: Gateway, http: httpx.AsyncClient, pod: Pod
) -> None:
    go_on = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MOST_PIECES + 1):
            go_on.clear()
            writer.write(b"2\r\n\n\n\r\n")
            await go_on.wait()
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(WHOLE), WHOLE))

    async with serve(answer) as other:
        await gateway.apply("long.yaml", pool("long", other.address), picker_policy("long", usage=True),
                            route("long", rule(to_pool("long"), path="/long")))  # fmt: skip
        received = b""
        async with asyncio.timeout(60), http.stream("POST", "/long/v1/completions", json={"prompt": "x"}) as taken:
            async for piece in taken.aiter_raw():
                received += piece
                go_on.set()
    assert received == b"\n\n" * (MOST_PIECES + 1) + WHOLE
    line = await gateway.logged(taken.headers["x-request-id"])
    assert [line[name] for name in TOKENS] == ([12, 8, 3] if gateway.mode == "relayed" else [None] * 3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulation(gateway: Gateway) -> AsyncIterator[Simulation]:
    pods = [PodSettings(name="a", model="base", adapters=("tuned",), speed=20)]
    async with await simulate(pods) as simulation:
        await gateway.apply(
            "simulated.yaml",
            pool("gpu", *simulation.addresses.values()),
            picker_policy("gpu", usage=True),
            route("gpu", rule(to_pool("gpu"), path="/v1")),
        )
        yield simulation


@pytest.mark.usefixtures("simulation")
async def test_picker_compares_what_it_expected_with_what_answers_tell(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    lines = [
        await _logged(gateway, http, "/v1/completions", model="base", prompt="word " * 500, max_tokens=5, **more)
        for more in ({}, {}, stream)
    ]
    assert [line["completion_tokens"] for line in lines] == [5] * 3
    assert [line["cached_tokens"] for line in lines] == [0, *[lines[1]["cached_tokens"]] * 2]
    assert lines[1]["cached_tokens"] > 0.9 * lines[1]["prompt_tokens"]
    told = {
        "prompt": sum(line["prompt_tokens"] for line in lines),
        "cached": sum(line["cached_tokens"] for line in lines),
    }

    async def is_compared() -> bool:
        metrics = await gateway.metrics()
        names = ("infergate_compared_prompt_tokens_total", "infergate_compared_reported_cached_tokens_total")
        found = [metrics.get(f'{name}{{pool="default/gpu"}}') for name in names]
        return found == [told["prompt"], told["cached"]]

    await eventually(is_compared)
    expected = (await gateway.metrics())['infergate_compared_predicted_cached_tokens_total{pool="default/gpu"}']
    assert expected == pytest.approx(told["cached"], rel=0.1)


@pytest.mark.usefixtures("simulation")
async def test_tokens_are_counted_by_model_and_pool(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async def counted() -> list[float]:
        metrics = await gateway.metrics()
        names = ("answers", "prompt_tokens", "cached_tokens", "completion_tokens")
        labels = 'model="tuned",pool="default/gpu"'
        return [metrics.get(f"infergate_model_{name}_total{{{labels}}}", 0.0) for name in names]

    async def is_known() -> bool:
        """A model that no endpoint has told of yet counts as another one."""
        await _logged(gateway, http, "/v1/completions", model="tuned", prompt="word " * 500, max_tokens=5)
        return (await counted())[0] > 0

    await eventually(is_known)
    before = await counted()
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    lines = [
        await _logged(gateway, http, "/v1/completions", model="tuned", prompt="word " * 500, max_tokens=5, **more)
        for more in ({}, stream, {"stream": True})
    ]
    assert lines[2]["prompt_tokens"] is None, "a stream that was not asked to tell does not"
    told = [2, *(sum(line[name] for line in lines[:2]) for name in TOKENS)]

    async def is_counted() -> bool:
        return [after - earlier for after, earlier in zip(await counted(), before, strict=True)] == told

    await eventually(is_counted)
