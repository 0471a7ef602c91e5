"""Gateways that keep to no protocol leave nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from controller.extproc.encoding import encode_part
from controller.extproc.messages import METHOD, BodyPart, HeadersPart, Phase, TrailersPart

from .conftest import Gateway, Served, Talk, request_headers, response_headers

POD = "127.1.0.1:8000"
UNREADABLE = grpc.StatusCode.INVALID_ARGUMENT
OPENING = encode_part(request_headers(), opens=True)

REFUSED = {
    "garbage": (b"\xff\xff\xff\xff",),
    "nothing": (b"",),
    "another message": (b"\x0a\x04gone",),
    "a body first": (encode_part(BodyPart(Phase.REQUEST, b"x", end_of_stream=True)),),
    "trailers first": (encode_part(TrailersPart(Phase.REQUEST)),),
    "a response first": (encode_part(response_headers()),),
    "headers twice": (OPENING, OPENING),
    "headers after a decision": (encode_part(request_headers(ends=True), opens=True), OPENING),
    "a response with headers twice": (OPENING, encode_part(response_headers()), encode_part(response_headers())),
    "garbage in a body": (OPENING, encode_part(BodyPart(Phase.REQUEST, b"x")), b"\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("messages", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_read_ends_the_stream_with_an_error(
    picker: Served, gateway: Gateway, messages: tuple[bytes, ...]
) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    for message in messages:
        await talk.send_raw(message)
    assert await talk.code() is UNREADABLE
    await picker.at_rest()
    assert await picker.metric("infergate_ext_proc_streams_ended_total", end="unreadable") == 1


async def test_unreadable_stream_leaves_the_others_of_its_connection(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    good, bad = gateway.talk(), gateway.talk()
    await good.ask(body=b"{}")
    await good.picked()
    await bad.send_raw(b"\xff\xff")
    await bad.code()
    assert (await good.body())[0] == b"{}"
    await good.respond(b"{}")
    await good.close()


async def test_ten_thousand_headers_are_read(picker: Served, gateway: Gateway) -> None:
    await picker.serving(POD)
    headers = tuple((f"x-{number}", b"v") for number in range(10_000))
    talk = gateway.talk()
    await talk.send(HeadersPart(Phase.REQUEST, (*request_headers().headers, *headers), end_of_stream=True))
    assert await talk.picked() == POD
    await talk.send(HeadersPart(Phase.RESPONSE, ((":status", b"200"), *headers), end_of_stream=True))
    await talk.next()
    await talk.close()
    await picker.at_rest()


@pytest.mark.parametrize("status", [b"", b"abc", b"99999999999999999999", b"-1", b"20"])
async def test_status_that_is_none_counts_as_a_bad_gateway(picker: Served, gateway: Gateway, status: bytes) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.ask(method="GET", path="/v1/things")
    await talk.picked()
    await talk.send(HeadersPart(Phase.RESPONSE, ((":status", status),), end_of_stream=True))
    await talk.next()
    assert await picker.metric("infergate_endpoint_failures_total") == 1
    await talk.close()
    await picker.at_rest()


ODD = [
    ((":path", b"/\xff\xfe"),),
    (("x-\u20ac", b"\xff"),),
    ((":method", b""), (":path", b"")),
    ((":path", b"/v1/models?" + b"x" * 100_000),),
    (),
]


@pytest.mark.parametrize("headers", ODD, ids=range(len(ODD)))
async def test_odd_headers_are_no_fault(
    picker: Served, gateway: Gateway, headers: tuple[tuple[str, bytes], ...]
) -> None:
    await picker.serving(POD)
    talk = gateway.talk()
    await talk.send(HeadersPart(Phase.REQUEST, headers, end_of_stream=True))
    assert await talk.picked() == POD


async def _nothing(talk: Talk) -> None:
    """A stream without a message."""


async def _head(talk: Talk) -> None:
    await talk.send(request_headers())


async def _half_a_body(talk: Talk) -> None:
    await _head(talk)
    await talk.send(BodyPart(Phase.REQUEST, bytes(500_000)))


async def _asked(talk: Talk) -> None:
    await talk.ask(body=bytes(500_000))


async def _asked_and_unread(talk: Talk) -> None:
    """More comes back than the window of a stream, and nobody takes it."""
    await talk.ask(body=bytes(3_000_000))


async def _picked(talk: Talk) -> None:
    await _asked(talk)
    await talk.picked()


async def _returned(talk: Talk) -> None:
    await _picked(talk)
    await talk.body()


async def _answered(talk: Talk) -> None:
    await _returned(talk)
    await talk.send(response_headers())
    await talk.next()


async def _half_an_answer(talk: Talk) -> None:
    await _answered(talk)
    await talk.send(BodyPart(Phase.RESPONSE, b"data: {}\n\n"))
    await talk.next()


async def _whole(talk: Talk) -> None:
    await _returned(talk)
    await talk.respond(b"{}")


POINTS: list[Callable[[Talk], Awaitable[None]]] = [
    _nothing, _head, _half_a_body, _asked, _asked_and_unread, _picked, _returned, _answered, _half_an_answer, _whole,
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__.strip("_"))
@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_stream_may_end_at_every_point(
    picker: Served, gateway: Gateway, point: Callable[[Talk], Awaitable[None]], how: str
) -> None:
    await picker.serving(POD)
    talks = [gateway.talk() for _ in range(5)]
    await asyncio.gather(*(point(talk) for talk in talks))
    for talk in talks:
        if how == "reset":
            talk.call.cancel()
        else:
            await talk.call.done_writing()
    if how == "half-close":
        for talk in talks:
            while await talk.call.read() is not grpc.aio.EOF:
                pass
            assert await talk.code() is grpc.StatusCode.OK
    await picker.at_rest()


async def test_gateway_that_only_observes_is_not_answered_and_takes_nothing(picker: Served, gateway: Gateway) -> None:
    from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

    await picker.serving(POD)
    message = ProcessingRequest.FromString(encode_part(request_headers(ends=True)))
    message.observability_mode = True
    talk = gateway.talk()
    await talk.send_raw(message.SerializeToString())
    await talk.close()
    assert await picker.metric("infergate_picks_total") == 0


async def test_other_methods_are_not_implemented(gateway: Gateway) -> None:
    call = gateway.channel.unary_unary(f"{METHOD}s")
    with pytest.raises(grpc.aio.AioRpcError) as problem:
        await call(b"")
    assert problem.value.code() is grpc.StatusCode.UNIMPLEMENTED
