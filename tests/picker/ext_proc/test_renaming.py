"""Requests that are given another model, and the name that their answers tell."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from controller.extproc.encoding import encode_part
from controller.extproc.messages import (
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    Immediate,
    Phase,
    TrailersAnswer,
    TrailersPart,
)
from controller.plugins.types import DEFAULT_POLICY, AppliedPolicy
from controller.pools import ModelRewrite, ModelTarget

from .conftest import (
    ONE_AT_A_TIME,
    TRAILERS,
    Gateway,
    Served,
    Talk,
    body_parts,
    eventually,
    request_headers,
    response_headers,
)

POD = "127.1.0.1:8000"
ALIAS = ModelRewrite("alias, rule 0", (ModelTarget("target-model", 1),), ("chat",))
SAME = ModelRewrite("same, rule 0", (ModelTarget("same", 1),), ("same",))
ASKED = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x" * 5000}]}).encode()
SENT = ASKED.replace(b'"chat"', b'"target-model"')
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
EVENT = b'data: {"id":"1","model":"%b","choices":[{"delta":{"content":"\\"model\\":\\"target-model\\""}}]}\n\n'


async def serving(picker: Served, policy: AppliedPolicy = DEFAULT_POLICY) -> None:
    await picker.serving(POD, policy=policy, rewrites=(ALIAS, SAME))


async def open_in(talk: Talk, *modes: int, headers: dict[str, str] | None = None) -> None:
    """Begin a request whose bodies the gateway sends in modes."""
    message = ProcessingRequest.FromString(encode_part(request_headers(headers=headers)))
    message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = modes
    await talk.send_raw(message.SerializeToString())


async def asked(gateway: Gateway, body: bytes = ASKED, **more: Any) -> tuple[Talk, HeadersAnswer, bytes]:
    """A stream whose request was picked for, what its headers become, and its body."""
    talk = gateway.talk()
    await talk.ask(body=body, **more)
    answer, metadata = await talk.next()
    assert isinstance(answer, HeadersAnswer), answer
    assert metadata["envoy.lb"] == {"x-gateway-destination-endpoint": POD}
    return talk, answer, (await talk.body())[0]


async def answered(talk: Talk, *pieces: bytes, ends: bool = True, **headers: str) -> tuple[HeadersAnswer, bytes]:
    """What the headers of an answer become, and its body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    await talk.send(response_headers(headers={"content-type": "application/json", **named}))
    head, _ = await talk.next()
    assert isinstance(head, HeadersAnswer)
    for number, piece in enumerate(pieces):
        await talk.send(BodyPart(Phase.RESPONSE, piece, end_of_stream=ends and number == len(pieces) - 1))
    return head, (await talk.body(Phase.RESPONSE))[0] if ends else b""


def told(answer: HeadersAnswer | BodyAnswer) -> dict[str, bytes]:
    return {item.name: item.value for item in answer.changes.set}


async def test_body_names_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    headers = {"content-length": str(len(ASKED)), "accept-encoding": "gzip"}
    _, answer, body = await asked(gateway, headers=headers)
    assert body == SENT
    assert told(answer)["content-length"] == str(len(SENT)).encode()
    assert "accept-encoding" in answer.changes.remove


async def test_decisions_metrics_and_the_gateway_are_told_both_names(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk = gateway.talk()
    await talk.ask(body=ASKED)
    _, metadata = await talk.next()
    assert metadata["infergate.dev"] == {"model": "chat", "target": "target-model"}
    decision = (await picker.decisions())[0]
    assert (decision["model"], decision["target"]) == ("chat", "target-model")
    name = "infergate_rewritten_requests_total"
    assert await picker.metric(name, pool="llm/gpu", model="chat", target_model="target-model") == 1


async def test_prompts_of_an_alias_are_cached_as_those_of_its_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    await asked(gateway)
    await asked(gateway, SENT)
    assert (await picker.decisions())[0]["cachedTokens"] > 1000


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model":"other"}', {}),
        (b'{"model":"same"}', {"accept-encoding": "gzip", "content-length": "16"}),
        (b'{"messages":[{"model":"chat"}]}', {}),
        (b'{"model":"chat"', {}),
        (b'{"model":"chat","temperature":NaN}', {}),
        (b'{"model":"chat","user":"\\ud83d","prompt":"' + b"x" * 300_000 + b'"}', {}),
        (FORM % b"chat", {"content-type": "application/json"}),
    ],
)
async def test_other_requests_keep_their_bodies(
    picker: Served, gateway: Gateway, body: bytes, headers: dict[str, str]
) -> None:
    await serving(picker)
    talk, answer, sent = await asked(gateway, body, headers=headers)
    assert (sent, answer.changes.remove, list(told(answer))) == (body, (), ["x-gateway-destination-endpoint"])
    assert (await answered(talk, b'{"model":"target-model"}'))[1] == b'{"model":"target-model"}'


async def test_body_with_half_of_an_emoji_names_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    body = b'{"user":"\\ud83d","model":"chat","metadata":{"model":"chat"}}'
    assert (await asked(gateway, body))[2] == body.replace(b'"chat"', b'"target-model"', 1)


async def test_model_in_the_path_stays(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk = gateway.talk()
    await talk.ask("/v1/models/chat", body=ASKED)
    await talk.picked()
    assert (await talk.body())[0] == ASKED


async def test_form_names_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk = gateway.talk()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    await talk.ask("/v1/audio/transcriptions", body=FORM % b"chat", headers=headers)
    await talk.picked()
    assert (await talk.body())[0] == FORM % b"target-model"


async def test_body_that_is_too_large_for_a_prompt_names_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    body = b'{"x":"' + b'\\"' * 5_000_000 + b'","model":"chat"}'
    assert (await asked(gateway, body))[2] == body.replace(b'"chat"', b'"target-model"')


async def test_body_before_trailers_names_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk = gateway.talk()
    await talk.send(request_headers())
    await talk.send(BodyPart(Phase.REQUEST, ASKED))
    await talk.send(TRAILERS)
    assert await talk.picked() == POD
    answer, _ = await talk.next()
    assert isinstance(answer, BodyAnswer)
    assert (answer.chunk, answer.end_of_stream) == (SENT, False)
    assert await talk.next() == (TrailersAnswer(Phase.REQUEST), {})


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_buffered_body_is_replaced_with_its_length(picker: Served, gateway: Gateway, is_waiting: bool) -> None:
    await serving(picker, ONE_AT_A_TIME)
    first = None
    if is_waiting:
        first, _, _ = await asked(gateway, b"{}")
    talk = gateway.talk()
    length = {"content-length": str(len(ASKED))}
    await open_in(talk, ProcessingMode.BUFFERED, ProcessingMode.BUFFERED, headers=length)
    await talk.next()
    await talk.send(BodyPart(Phase.REQUEST, ASKED, end_of_stream=True))
    if first is not None:

        async def waits() -> bool:
            return await picker.metric("infergate_flow_control_queue_size") == 1

        await eventually(waits)
        await first.respond(b"{}")
    answer, _ = await talk.next()
    assert isinstance(answer, BodyAnswer)
    assert (answer.chunk, answer.is_streamed) == (SENT, False)
    assert told(answer) == {"x-gateway-destination-endpoint": POD.encode(), "content-length": b"%d" % len(SENT)}
    assert await picker.metric("infergate_ext_proc_body_bytes") == 0


@pytest.mark.parametrize("is_whole", [False, True])
async def test_part_of_a_body_stays(picker: Served, gateway: Gateway, is_whole: bool) -> None:
    await serving(picker)
    talk = gateway.talk()
    length = {"content-length": str(len(ASKED))}
    await open_in(talk, ProcessingMode.BUFFERED_PARTIAL, ProcessingMode.NONE, headers=length)
    await talk.next()
    await talk.send(BodyPart(Phase.REQUEST, ASKED, end_of_stream=is_whole))
    answer, _ = await talk.next()
    assert isinstance(answer, BodyAnswer)
    assert answer.chunk == (SENT if is_whole else None)
    assert answer.changes.remove == (("content-length",) if is_whole else ())


@pytest.mark.parametrize("mode", [ProcessingMode.NONE, ProcessingMode.STREAMED])
async def test_request_that_is_picked_for_before_its_body_keeps_its_model(
    picker: Served, gateway: Gateway, mode: int
) -> None:
    await serving(picker)
    talk = gateway.talk()
    await open_in(talk, mode, mode)
    assert await talk.picked() == POD
    if mode == ProcessingMode.STREAMED:
        for part in body_parts(ASKED):
            await talk.send(part)
            assert await talk.next() == (BodyAnswer(Phase.REQUEST), {})
    assert await picker.metric("infergate_rewritten_requests_total") == 0


async def test_answer_has_the_name_that_was_asked_for(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    answer = b'{"choices":[{"model":"target-model"}],"model":"target-model","usage":{}}'
    head, body = await answered(talk, answer[:50], answer[50:], content_length=str(len(answer)))
    assert body == b'{"choices":[{"model":"target-model"}],"model":"chat","usage":{}}'
    assert head.changes.remove == ("content-length",)
    await talk.close()
    await picker.at_rest()


async def test_each_event_has_the_name_that_was_asked_for_before_the_next_one(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    await answered(talk, ends=False, content_type="text/event-stream")
    for _ in range(5):
        await talk.send(BodyPart(Phase.RESPONSE, EVENT % b"target-model"))
        assert await talk.next() == (BodyAnswer(Phase.RESPONSE, EVENT % b"chat", is_streamed=True), {})
    await talk.send(BodyPart(Phase.RESPONSE, b"", end_of_stream=True))
    assert await talk.body(Phase.RESPONSE) == (b"", [0])


async def test_event_that_comes_byte_by_byte_is_restored(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    event = EVENT % b"target-model"
    pieces = (event[at : at + 1] for at in range(len(event)))
    assert (await answered(talk, *pieces, content_type="text/event-stream"))[1] == EVENT % b"chat"


async def test_each_of_several_models_of_an_event_is_restored(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    event = b'data: {"model"  : "%b","id":"1","model":"%b","choices":[]}\n\n'
    _, body = await answered(talk, event % (b"one", b"other"), content_type="text/event-stream")
    assert body == event % (b"chat", b"chat")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "audio/mpeg"}, b'{"model":"target-model"}'),
        ({"content-encoding": "gzip"}, gzip.compress(b'{"model":"target-model"}')),
    ],
)
async def test_answer_that_cannot_be_read_stays(
    picker: Served, gateway: Gateway, headers: dict[str, str], body: bytes
) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    assert (await answered(talk, body, **headers))[1] == body  # type: ignore[arg-type]  # no header is `ends`


async def test_what_is_held_of_an_answer_goes_before_its_trailers(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    talk, _, _ = await asked(gateway)
    await answered(talk, b'{"model":"tar', ends=False)
    assert await talk.next() == (BodyAnswer(Phase.RESPONSE, b'{"model":', is_streamed=True), {})
    await talk.send(TrailersPart(Phase.RESPONSE))
    assert await talk.next() == (BodyAnswer(Phase.RESPONSE, b'"tar', is_streamed=True), {})
    assert await talk.next() == (TrailersAnswer(Phase.RESPONSE), {})


@pytest.mark.parametrize("mode", [ProcessingMode.STREAMED, ProcessingMode.BUFFERED, ProcessingMode.BUFFERED_PARTIAL])
async def test_each_piece_of_an_answer_is_answered_where_that_is_the_mode(
    picker: Served, gateway: Gateway, mode: int
) -> None:
    await serving(picker)
    talk = gateway.talk()
    await open_in(talk, ProcessingMode.BUFFERED, mode)
    await talk.next()
    await talk.send(BodyPart(Phase.REQUEST, ASKED, end_of_stream=True))
    await talk.next()
    await talk.send(response_headers(headers={"content-type": "application/json", "content-length": "24"}))
    head, _ = await talk.next()
    assert isinstance(head, HeadersAnswer)
    assert head.changes.remove == ("content-length",)
    pieces = [b'{"model":"target-model"}']
    if mode == ProcessingMode.STREAMED:
        pieces = [b'{"mod', b'el":"target-model', b'"}']
    back = []
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1 and mode != ProcessingMode.BUFFERED_PARTIAL
        await talk.send(BodyPart(Phase.RESPONSE, piece, end_of_stream=is_last))
        answer, _ = await talk.next()
        assert isinstance(answer, BodyAnswer)
        assert not answer.is_streamed
        back.append(answer.chunk or b"")
    assert b"".join(back) == b'{"model":"chat"}'


async def test_users_stay_on_their_side(picker: Served, gateway: Gateway) -> None:
    sides = ModelRewrite("sides", (ModelTarget("left", 1), ModelTarget("right", 1)), ("sides",), "x-user")
    await picker.serving(POD, rewrites=(sides,))
    body = b'{"model":"sides"}'
    users = [f"user-{number}" for number in range(20)] * 2
    seen = [json.loads((await asked(gateway, body, headers={"x-user": user}))[2])["model"] for user in users]
    assert seen[:20] == seen[20:]
    assert set(seen) == {"left", "right"}


@pytest.mark.parametrize(("model", "status"), [("chat", 0), ("nobody", 404)])
async def test_name_of_a_rewrite_is_no_unknown_model(picker: Served, gateway: Gateway, model: str, status: int) -> None:
    async with await asyncio.start_server(models, "127.0.0.1", 0) as pod:
        policy = AppliedPolicy(refuse_unknown_models=True)
        address = f"127.0.0.1:{pod.sockets[0].getsockname()[1]}"
        await picker.serving(address, policy=policy, rewrites=(ALIAS,))
        await eventually(lambda: is_listed(gateway, "chat"))
        talk = gateway.talk()
        await talk.ask(body=b'{"model":"%b"}' % model.encode())
        answer, _ = await talk.next()
        assert (answer.status if isinstance(answer, Immediate) else 0) == status


async def models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A pod that lists one, and says the same to every question."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 32\r\n\r\n")
    writer.write(b'{"data":[{"id":"target-model"}]}')
    writer.close()


async def is_listed(gateway: Gateway, model: str) -> bool:
    """Whether clients are told of a model."""
    talk = gateway.talk()
    await talk.ask("/v1/models", method="GET")
    answer, _ = await talk.next()
    return isinstance(answer, Immediate) and model in [one["id"] for one in json.loads(answer.body)["data"]]


async def test_client_does_not_choose_the_target(picker: Served, gateway: Gateway) -> None:
    await serving(picker)
    _, answer, body = await asked(gateway, headers={"x-infergate-target": "evil", "x-infergate-rewrites": "@evil"})
    assert body == SENT
    assert {"x-infergate-target", "x-infergate-rewrites"} <= set(answer.changes.remove)
