"""What the response phase teaches the picker, and what comes back of it."""

import asyncio
import json

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from controller.extproc.messages import (
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    Phase,
    TrailersAnswer,
    TrailersPart,
)
from controller.plugins.types import AppliedPolicy, ConfiguredPlugin, Scheduling

from .conftest import Gateway, Served, Talk, eventually, request_headers, response_headers
from .test_requests import open_in

PODS = ("127.1.0.1:8000", "127.1.0.2:8000")
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 40}}
STREAMED = json.dumps({"model": "m", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}).encode()


async def picked(gateway: Gateway, body: bytes = b'{"model":"m","prompt":"x"}') -> tuple[Talk, str]:
    """A stream whose request was picked for, and where it goes."""
    talk = gateway.talk()
    await talk.ask("/v1/completions", body=body)
    endpoint = await talk.picked()
    await talk.body()
    return talk, endpoint


async def test_request_is_in_flight_from_the_pick_to_the_end_of_its_answer(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, endpoint = await picked(gateway)
    assert await picker.metric("infergate_inflight_requests", model_server_endpoint=endpoint) == 1
    await talk.respond(b"{}", served=endpoint)
    assert await picker.counts() == (0, 1, 0)
    await talk.close()
    await picker.at_rest()
    assert await picker.metric("infergate_ext_proc_streams_ended_total", end="whole") == 1


@pytest.mark.parametrize("ending", ["headers", "body", "trailers"])
async def test_answer_ends_with_whatever_comes_last(picker: Served, gateway: Gateway, ending: str) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway)
    await talk.send(response_headers(ends=ending == "headers"))
    assert isinstance((await talk.next())[0], HeadersAnswer)
    if ending != "headers":
        await talk.send(BodyPart(Phase.RESPONSE, b"{}", end_of_stream=ending == "body"))
        assert await talk.next() == (
            BodyAnswer(Phase.RESPONSE, b"{}", is_streamed=True, end_of_stream=ending == "body"),
            {},
        )
    if ending == "trailers":
        await talk.send(TrailersPart(Phase.RESPONSE, (("grpc-status", b"0"),)))
        assert await talk.next() == (TrailersAnswer(Phase.RESPONSE), {})
    assert await picker.metric("infergate_inflight_requests") == 0


async def test_piece_of_an_answer_that_is_larger_than_envoy_takes_comes_back_in_several(
    picker: Served, gateway: Gateway
) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway)
    await talk.send(response_headers())
    await talk.next()
    await talk.send(BodyPart(Phase.RESPONSE, bytes(200_000), end_of_stream=True))
    body, sizes = await talk.body(Phase.RESPONSE)
    assert (body, max(sizes)) == (bytes(200_000), 62_000)


async def test_each_event_of_a_stream_comes_back_before_the_next_one(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway, STREAMED)
    await talk.send(response_headers(headers={"content-type": "text/event-stream"}))
    await talk.next()
    for number in range(5):
        event = b"data: %d\n\n" % number
        await talk.send(BodyPart(Phase.RESPONSE, event))
        assert await talk.next() == (BodyAnswer(Phase.RESPONSE, event, is_streamed=True), {})


async def test_first_byte_of_a_streamed_answer_ends_its_backlog(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway, STREAMED.replace(b'"x"', b'"%b"' % (b"x" * 8000)))
    assert await picker.metric("infergate_backlog_tokens") > 1000
    await talk.send(response_headers(headers={"content-type": "text/event-stream"}))
    await talk.next()
    assert await picker.metric("infergate_backlog_tokens") > 1000
    await talk.send(BodyPart(Phase.RESPONSE, b"data: {}\n\n"))
    await talk.next()
    assert await picker.metric("infergate_backlog_tokens") == 0
    assert await picker.metric("infergate_first_bytes_total") == 1


ANSWERS = [
    (b'{"model":"m","prompt":"x"}', [json.dumps({"choices": [], "usage": USAGE}).encode()]),
    (
        STREAMED,
        [b'data: {"choices":[]}\n\n', b'data: {"usage":%b}\n\n' % json.dumps(USAGE).encode(), b"data: [DONE]\n\n"],
    ),
]


@pytest.mark.parametrize(("body", "pieces"), ANSWERS, ids=["whole", "streamed"])
async def test_tokens_are_read_where_the_policy_says_so(
    picker: Served, gateway: Gateway, body: bytes, pieces: list[bytes]
) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(usage=True))
    talk, _ = await picked(gateway, body)
    await talk.respond(*pieces)
    assert await picker.metric("infergate_model_answers_total") == 1
    assert await picker.metric("infergate_model_prompt_tokens_total") == 100
    assert await picker.metric("infergate_model_cached_tokens_total") == 40
    assert await picker.metric("infergate_model_completion_tokens_total") == 7


@pytest.mark.parametrize(
    ("status", "headers"), [(400, {}), (500, {}), (200, {"content-encoding": "gzip"})], ids=["400", "500", "gzip"]
)
async def test_tokens_are_not_read_from_answers_without_success_or_with_an_encoding(
    picker: Served, gateway: Gateway, status: int, headers: dict[str, str]
) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(usage=True))
    talk, _ = await picked(gateway)
    await talk.respond(json.dumps({"usage": USAGE}).encode(), status=status, headers=headers)
    assert await picker.metric("infergate_model_answers_total") == 0


async def test_endpoint_whose_answers_fail_gets_nothing_more(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, failing = await picked(gateway)
    await talk.respond(status=503)
    assert await picker.metric("infergate_endpoint_failures_total", model_server_endpoint=failing) == 1
    assert {(await picked(gateway))[1] for _ in range(4)} == set(PODS) - {failing}


async def test_error_with_a_body_does_not_speak_for_its_endpoint(picker: Served, gateway: Gateway) -> None:
    await picker.serving(PODS[0])
    talk, _ = await picked(gateway, STREAMED)
    await talk.respond(status=503)
    # Sent after the trouble began, so that the first byte of a model would end it.
    talk, _ = await picked(gateway, STREAMED)
    await talk.respond(b"it", b"broke", status=500)
    assert await picker.metric("infergate_first_bytes_total") == 0
    assert await picker.metric("infergate_endpoint_paused") == 1


async def test_endpoint_served_after_a_retry_has_the_request(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(fallbacks=1))
    talk, endpoints = await picked(gateway)
    first, second = endpoints.split(",")
    metadata = {"envoy.lb": {"x-gateway-destination-endpoint-served": second}}
    await talk.send(response_headers(headers={"content-type": "text/event-stream"}), metadata)
    await talk.next()
    assert await picker.metric("infergate_inflight_requests", model_server_endpoint=first) == 0
    assert await picker.metric("infergate_inflight_requests", model_server_endpoint=second) == 1
    assert await picker.metric("infergate_endpoint_failures_total", model_server_endpoint=first) == 1
    await talk.send(BodyPart(Phase.RESPONSE, b"data", end_of_stream=True))
    await talk.next()
    assert await picker.metric("infergate_inflight_requests") == 0
    assert await picker.metric("infergate_endpoint_failures_total", model_server_endpoint=second) == 0


async def test_served_endpoint_that_was_no_fallback_speaks_not_against_the_picked_one(
    picker: Served, gateway: Gateway
) -> None:
    await picker.serving(*PODS)
    talk, first = await picked(gateway)
    (other,) = set(PODS) - {first}
    metadata = {"envoy.lb": {"x-gateway-destination-endpoint-served": other}}
    await talk.send(response_headers(), metadata)
    await talk.next()
    assert await picker.metric("infergate_inflight_requests", model_server_endpoint=other) == 1
    assert await picker.metric("infergate_endpoint_failures_total") == 0


@pytest.mark.parametrize("served", ["6.6.6.6:1", "", "envoy://tunnel"])
async def test_served_endpoint_that_is_none_of_the_pool_changes_nothing(
    picker: Served, gateway: Gateway, served: str
) -> None:
    await picker.serving(*PODS)
    talk, first = await picked(gateway)
    await talk.send(response_headers(), {"envoy.lb": {"x-gateway-destination-endpoint-served": served}})
    await talk.next()
    assert await picker.metric("infergate_inflight_requests", model_server_endpoint=first) == 1


async def test_model_server_does_not_speak_for_the_gateway(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway)
    await talk.send(response_headers(headers={"x-infergate-explain": "{}", "x-kept": "1"}))
    answer, _ = await talk.next()
    assert isinstance(answer, HeadersAnswer)
    assert answer.changes.remove == ("x-infergate-explain",)


async def test_client_is_told_why_where_it_may_ask(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS, policy=AppliedPolicy(explain=True))
    talk = gateway.talk()
    await talk.ask(method="GET", headers={"x-infergate-explain": "1"})
    endpoint = await talk.picked()
    await talk.send(response_headers())
    answer, _ = await talk.next()
    assert isinstance(answer, HeadersAnswer)
    (why,) = answer.changes.set
    assert (why.name, json.loads(why.value)["choice"]) == ("x-infergate-explain", endpoint)


async def test_client_is_told_the_endpoint_of_its_session(picker: Served, gateway: Gateway) -> None:
    filters = (ConfiguredPlugin("session-affinity-filter", "session-affinity-filter"),)
    parts = Scheduling(filters, (), ConfiguredPlugin("random-picker", "random-picker"))
    await picker.serving(*PODS, policy=AppliedPolicy(parts))
    told: dict[str, str] = {}
    for _ in range(5):
        talk = gateway.talk()
        await talk.ask(method="GET", headers=told)
        endpoint = await talk.picked()
        await talk.send(response_headers())
        answer, _ = await talk.next()
        assert isinstance(answer, HeadersAnswer)
        (token,) = answer.changes.set
        assert told in ({}, {token.name: token.value.decode()})
        told = {"x-session-token": token.value.decode()}
    assert endpoint in PODS


@pytest.mark.parametrize("after", ["the pick", "the headers", "a piece"])
@pytest.mark.parametrize("how", ["reset", "half-closed"])
async def test_stream_that_ends_early_leaves_nothing_in_flight(
    picker: Served, gateway: Gateway, after: str, how: str
) -> None:
    await picker.serving(*PODS)
    talk, _ = await picked(gateway, STREAMED)
    if after != "the pick":
        await talk.send(response_headers())
        await talk.next()
    if after == "a piece":
        await talk.send(BodyPart(Phase.RESPONSE, b"data: {}\n\n"))
        await talk.next()
    assert await picker.metric("infergate_inflight_requests") == 1
    if how == "reset":
        talk.call.cancel()
    else:
        await talk.close()
    await picker.at_rest()
    end = "without_response" if after == "the pick" else "cut"
    assert await picker.metric("infergate_ext_proc_streams_ended_total", end=end) == 1
    assert await picker.metric("infergate_endpoint_failures_total") == 0


@pytest.mark.parametrize("how", ["reset", "half-closed"])
async def test_error_counts_whose_client_does_not_read_it(picker: Served, gateway: Gateway, how: str) -> None:
    await picker.serving(PODS[0])
    talk, _ = await picked(gateway)
    await talk.send(response_headers(status=503))
    await talk.next()
    if how == "reset":
        talk.call.cancel()
    else:
        await talk.close()
    await picker.at_rest()
    assert await picker.metric("infergate_endpoint_failures_total", reason="unavailable") == 1


@pytest.mark.parametrize(("status", "paused"), [(200, 0), (503, 1)])
async def test_status_speaks_for_an_answer_whose_body_is_not_shown(
    picker: Served, gateway: Gateway, status: int, paused: int
) -> None:
    await picker.serving(PODS[0])
    talk, _ = await picked(gateway)
    await talk.respond(status=503)
    await talk.close()
    assert await picker.metric("infergate_endpoint_paused") == 1
    residence = await picker.metric("infergate_learned_residence_seconds")
    talk = gateway.talk()
    await open_in(talk, ProcessingMode.NONE)
    await talk.picked()
    await talk.send(response_headers(status=status))
    await talk.next()
    await talk.close()
    await picker.at_rest()
    assert await picker.metric("infergate_endpoint_paused") == paused
    # It is not known how long the answer took.
    assert await picker.metric("infergate_learned_residence_seconds") == residence


async def test_gateway_that_ends_teaches_nothing(picker: Served) -> None:
    """Its connection is gone, with all that it had in flight."""
    from .conftest import gateway_of

    await picker.serving(*PODS)
    async with gateway_of(picker.address) as gateway:
        await asyncio.gather(*(picked(gateway) for _ in range(20)))
        assert await picker.metric("infergate_inflight_requests") == 20
    await picker.at_rest()


async def test_two_thousand_streams_of_one_connection_are_served_at_once(picker: Served, gateway: Gateway) -> None:
    await picker.serving(*PODS)

    async def begin() -> Talk:
        talk = gateway.talk()
        await talk.send(request_headers("/v1/things", method="GET", ends=True))
        await talk.picked()
        return talk

    talks = await asyncio.gather(*(begin() for _ in range(2000)))
    assert await picker.counts() == (2000, 2000, 0)
    await asyncio.gather(*(talk.respond(b"x") for talk in talks))

    async def none_is_in_flight() -> bool:
        return await picker.metric("infergate_inflight_requests") == 0

    await eventually(none_is_in_flight)
