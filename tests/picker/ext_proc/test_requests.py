"""What the picker answers to the request phase, in every mode in which a gateway sends it."""

import json

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from controller.extproc.encoding import encode_part
from controller.extproc.messages import (
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    Phase,
    TrailersAnswer,
    TrailersPart,
)
from controller.plugins.types import AppliedPolicy

from .conftest import CHAT, TRAILERS, Gateway, Served, Talk, body_parts, request_headers

POD = "127.1.0.1:8000"
PROMPT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()


async def open_in(talk: Talk, mode: int) -> None:
    """Begin a request whose body the gateway sends in a mode."""
    message = ProcessingRequest.FromString(encode_part(request_headers()))
    message.protocol_config.request_body_mode = mode
    message.protocol_config.response_body_mode = mode
    await talk.send_raw(message.SerializeToString())


async def test_request_without_body_is_picked_at_once(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask("/v1/embeddings", method="GET")
    assert await talk.picked() == POD


async def test_requests_without_body_follow_the_load(picker: Served, gateway: Gateway) -> None:
    pods = [f"127.1.0.{number}:8000" for number in range(1, 5)]
    await picker.serving(*pods)
    picked = []
    for _ in pods * 2:
        talk = gateway.talk()
        await talk.ask("/v1/things", method="GET")
        picked.append(await talk.picked())
    assert sorted(picked) == sorted(pods * 2)


@pytest.mark.parametrize("size", [0, 1, 62_000, 62_001, 400_000, 1_200_000])
async def test_body_comes_back_whole_in_pieces_that_envoy_takes(picker: Served, gateway: Gateway, size: int) -> None:
    await picker.serving(POD)
    body = bytes(number % 251 for number in range(size))
    talk = gateway.talk()
    await talk.ask(body=body)
    assert await talk.picked() == POD
    returned, sizes = await talk.body()
    assert returned == body
    assert max(sizes) <= 62_000


async def test_route_is_chosen_anew_and_the_headers_come_before_the_body(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask(body=PROMPT)
    answer, _ = await talk.next()
    assert isinstance(answer, HeadersAnswer)
    assert answer.clears_route


async def test_second_end_of_the_body_is_ignored(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask(body=PROMPT)
    await talk.send(BodyPart(Phase.REQUEST, b"", end_of_stream=True))
    assert await talk.picked() == POD
    assert (await talk.body())[0] == PROMPT
    await talk.respond(b"{}")
    await talk.close()
    await picker.at_rest()


async def test_trailers_end_a_body_and_are_answered_behind_it(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.send(request_headers())
    await talk.send(BodyPart(Phase.REQUEST, PROMPT))
    await talk.send(TRAILERS)
    assert await talk.picked() == POD
    answer, _ = await talk.next()
    assert isinstance(answer, BodyAnswer)
    assert (answer.chunk, answer.end_of_stream) == (PROMPT, False)
    assert await talk.next() == (TrailersAnswer(Phase.REQUEST), {})


async def test_trailers_without_a_body_are_answered(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.send(request_headers())
    await talk.send(TRAILERS)
    assert await talk.picked() == POD
    assert await talk.next() == (TrailersAnswer(Phase.REQUEST), {})


@pytest.mark.parametrize("mode", [ProcessingMode.BUFFERED, ProcessingMode.BUFFERED_PARTIAL])
async def test_buffered_body_is_answered_by_the_headers_of_its_answer(
    picker: Served, gateway: Gateway, mode: int
) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await open_in(talk, mode)
    assert await talk.next() == (HeadersAnswer(Phase.REQUEST), {})
    await talk.send(BodyPart(Phase.REQUEST, PROMPT, end_of_stream=mode == ProcessingMode.BUFFERED))
    answer, metadata = await talk.next()
    assert isinstance(answer, BodyAnswer)
    assert (answer.chunk, [one.value for one in answer.changes.set]) == (None, [POD.encode()])
    assert metadata["envoy.lb"] == {"x-gateway-destination-endpoint": POD}
    assert (await picker.decisions())[0]["promptTokens"] > 0


async def test_buffered_body_is_not_held_while_its_exchange_goes_on(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await open_in(talk, ProcessingMode.BUFFERED)
    await talk.next()
    await talk.send(BodyPart(Phase.REQUEST, PROMPT, end_of_stream=True))
    await talk.next()
    assert await picker.counts() == (1, 1, 0)


@pytest.mark.parametrize("mode", [ProcessingMode.NONE, ProcessingMode.STREAMED])
async def test_headers_that_go_on_before_their_body_are_picked_for_by_load(
    picker: Served, gateway: Gateway, mode: int
) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await open_in(talk, mode)
    assert await talk.picked() == POD
    if mode == ProcessingMode.STREAMED:
        await talk.send(BodyPart(Phase.REQUEST, PROMPT, end_of_stream=True))
        assert await talk.next() == (BodyAnswer(Phase.REQUEST), {})
        await talk.send(TrailersPart(Phase.REQUEST))
        assert await talk.next() == (TrailersAnswer(Phase.REQUEST), {})


async def test_gateway_that_tells_no_mode_is_taken_for_one_of_the_protocol(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.send_raw(encode_part(request_headers()))
    for part in body_parts(PROMPT):
        await talk.send(part)
    assert await talk.picked() == POD


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, PROMPT),
        (f"{CHAT}?api-version=1", PROMPT),
        ("/v1/completions", b'{"model":"m","prompt":"hello"}'),
        ("/v1/embeddings", b'{"model":"m","input":"hello"}'),
        ("/v1/responses", b'{"model":"m","input":"hello"}'),
        ("/v1/messages", b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}'),
    ],
)
async def test_prompt_is_read_by_the_path_of_its_api(picker: Served, gateway: Gateway, path: str, body: bytes) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask(path, body=body)
    await talk.picked()
    assert (await picker.decisions())[0]["promptTokens"] > 0


async def test_same_prompts_go_where_they_are_cached(picker: Served, gateway: Gateway) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000")
    body = json.dumps({"model": "m", "prompt": "x" * 20_000}).encode()
    picked = set()
    for _ in range(4):
        talk = gateway.talk()
        await talk.ask("/v1/completions", body=body)
        picked.add(await talk.picked())
        await talk.body()
        await talk.respond(b"{}")
        await talk.close()
        await picker.at_rest()
    assert len(picked) == 1
    assert (await picker.decisions())[0]["cachedTokens"] > 4000


async def test_headers_that_steer_count_for_nothing_and_go_no_further(picker: Served, gateway: Gateway) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000")
    headers = {
        "x-infergate-pool": "llm/other",
        "x-infergate-priority": "100",
        "x-infergate-tried": "127.1.0.1:8000=unreachable;",
        "x-gateway-destination-endpoint": "6.6.6.6:1",
        "x-gateway-destination-endpoint-subset": "6.6.6.6:1",
        "x-gateway-destination-endpoint-served": "6.6.6.6:1",
    }
    talk = gateway.talk()
    await talk.ask(method="GET", headers=headers)
    answer, _ = await talk.next()
    assert isinstance(answer, HeadersAnswer)
    assert set(answer.changes.remove) == headers.keys() - {"x-gateway-destination-endpoint"}
    (endpoint,) = [one.value for one in answer.changes.set if one.name == "x-gateway-destination-endpoint"]
    assert endpoint in (b"127.1.0.1:8000", b"127.1.0.2:8000")


FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("path", "kind", "body", "model"),
    [
        (CHAT, "application/json", b'{"model":"m","messages":[]}', "m"),
        ("/v1/rerank", "application/json", b'{"model":"m","query":"q"}', "m"),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=b", FORM, "whisper"),
        ("/v1/things", "application/json", b'{"model":"m"}', None),
    ],
)
async def test_gateway_is_told_of_the_model(
    picker: Served, gateway: Gateway, path: str, kind: str, body: bytes, model: str | None
) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask(path, body=body, headers={"content-type": kind})
    _, metadata = await talk.next()
    assert metadata.get("infergate.dev", {}).get("model") == model


@pytest.mark.parametrize(
    ("policy", "body", "told"),
    [
        (AppliedPolicy(usage=True), b'{"model":"m","prompt":"x"}', True),
        (AppliedPolicy(usage=True), b'{"model":"m","prompt":"x","stream":true}', False),
        (AppliedPolicy(), b'{"model":"m","prompt":"x"}', None),
    ],
)
async def test_gateway_is_told_whether_to_read_tokens_where_the_policy_has_them_read(
    picker: Served, gateway: Gateway, policy: AppliedPolicy, body: bytes, told: bool | None
) -> None:
    await picker.serving(POD, policy=policy)
    talk = gateway.talk()
    await talk.ask(body=body)
    _, metadata = await talk.next()
    assert metadata["infergate.dev"].get("usage") is told


SUBSETS = [
    (["127.1.0.2:8000"], {"127.1.0.2:8000"}),
    (["127.1.0.2:8000", "127.1.0.9:8000"], {"127.1.0.2:8000"}),
    ("127.1.0.1:8000,127.1.0.2:8001", {"127.1.0.1:8000", "127.1.0.2:8001"}),
    (["127.1.0.2"], {"127.1.0.2:8000", "127.1.0.2:8001"}),
    (["::1"], {"[::1]:8000"}),
    (["[::1]:8000"], {"[::1]:8000"}),
]


@pytest.mark.parametrize(("subset", "allowed"), SUBSETS)
async def test_choice_stays_within_the_subset(
    picker: Served, gateway: Gateway, subset: object, allowed: set[str]
) -> None:
    await picker.serving("127.1.0.1:8000", "127.1.0.2:8000", "127.1.0.2:8001", "[::1]:8000")
    picked = set()
    for _ in range(4):
        talk = gateway.talk()
        metadata = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": subset}}
        await talk.send(request_headers(method="GET", ends=True), metadata)
        picked.add(await talk.picked())
    assert picked == allowed


@pytest.mark.parametrize("subset", [[], "", ["127.1.0.9:8000"], ["127.1.0.1:8001"], [None]])
async def test_subset_without_an_endpoint_of_the_pool_is_503(picker: Served, gateway: Gateway, subset: object) -> None:
    await picker.serving("127.1.0.1:8000")
    talk = gateway.talk()
    metadata = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": subset}}
    await talk.send(request_headers(method="GET", ends=True), metadata)
    assert (await talk.refused()).status == 503
