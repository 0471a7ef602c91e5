"""Messages of ext_proc survive the wire, and are read as the field writes them."""

import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
)

from controller.extproc.decoding import decode_answer, decode_part
from controller.extproc.encoding import encode_answer, encode_part
from controller.extproc.messages import (
    Action,
    Answer,
    BodyAnswer,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    MessageUnreadable,
    Metadata,
    Part,
    Phase,
    SetHeader,
    TrailersAnswer,
    TrailersPart,
    endpoints_in,
    endpoints_of,
)
from controller.extproc.wire import chunks_of, encode_body, encode_headers, encode_piece

CHANGES = Changes(
    set=(SetHeader("a", b"1"), SetHeader("b", b"\xff", Action.APPEND), SetHeader("c", b"", Action.ADD_IF_ABSENT)),
    remove=("d",),
)


@pytest.mark.parametrize(
    "part",
    [
        HeadersPart(Phase.REQUEST, ((":method", b"POST"), ("x", b"\xff")), end_of_stream=True),
        HeadersPart(Phase.RESPONSE, ((":status", b"200"),)),
        BodyPart(Phase.REQUEST, b"abc"),
        BodyPart(Phase.RESPONSE, b"", end_of_stream=True),
        TrailersPart(Phase.REQUEST),
        TrailersPart(Phase.RESPONSE, (("grpc-status", b"0"),)),
    ],
    ids=str,
)
def test_part_is_read_as_it_was_written(part: Part) -> None:
    metadata: Metadata = {
        "envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.1:80"},
        "other": {"list": ["a", "b"]},
    }
    assert decode_part(encode_part(part, metadata=metadata, opens=True)) == (part, metadata)
    assert decode_part(encode_part(part)) == (part, {})


@pytest.mark.parametrize(
    "answer",
    [
        HeadersAnswer(Phase.REQUEST),
        HeadersAnswer(Phase.REQUEST, CHANGES, body=b"new", replaces=True, clears_route=True),
        HeadersAnswer(Phase.RESPONSE, CHANGES),
        BodyAnswer(Phase.REQUEST),
        BodyAnswer(Phase.REQUEST, b"", changes=CHANGES),
        BodyAnswer(Phase.RESPONSE, b"piece"),
        BodyAnswer(Phase.RESPONSE, b"piece", is_streamed=True),
        BodyAnswer(Phase.REQUEST, b"", is_streamed=True, end_of_stream=True),
        TrailersAnswer(Phase.RESPONSE, CHANGES),
        Immediate(429, b"busy", CHANGES, details="shed"),
    ],
    ids=str,
)
def test_answer_is_read_as_it_was_written(answer: Answer) -> None:
    metadata = {"envoy.lb": {"x-gateway-destination-endpoint": "10.0.0.1:80"}}
    assert decode_answer(encode_answer(answer, metadata=metadata)) == (answer, metadata)
    assert decode_answer(encode_answer(answer)) == (answer, {})


def test_header_without_an_action_overwrites() -> None:
    option = HeaderValueOption(header=HeaderValue(key="X-Endpoint", value="10.0.0.1:80"))
    common = CommonResponse(header_mutation=HeaderMutation(set_headers=[option]))
    message = ProcessingResponse(request_headers=HeadersResponse(response=common))
    expected = Changes(set=(SetHeader("x-endpoint", b"10.0.0.1:80", Action.OVERWRITE),))
    assert decode_answer(message.SerializeToString())[0] == HeadersAnswer(Phase.REQUEST, expected)


def test_empty_body_answer_keeps_the_piece() -> None:
    message = ProcessingResponse(request_body=BodyResponse(response=CommonResponse()))
    assert decode_answer(message.SerializeToString())[0] == BodyAnswer(Phase.REQUEST, None)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\xff"])
def test_garbage_is_unreadable(garbage: bytes) -> None:
    with pytest.raises(MessageUnreadable):
        decode_answer(garbage)
    with pytest.raises(MessageUnreadable):
        decode_part(garbage)


def test_nothing_is_no_part_and_no_answer() -> None:
    assert decode_answer(b"") == (None, {})
    with pytest.raises(MessageUnreadable):
        decode_part(b"")


def test_answer_of_an_unknown_kind_is_unreadable() -> None:
    with pytest.raises(MessageUnreadable, match="none of the known answers"):
        decode_answer(b"\xa2\x06\x02\x0a\x00")  # field 100, a message


def test_body_is_cut_into_chunks() -> None:
    assert [len(piece) for piece in chunks_of(b"x" * 130_000)] == [62_000, 62_000, 6_000]
    assert list(chunks_of(b"")) == [b""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.1:80", ("10.0.0.1:80",)),
        (" [::1]:80 ,10.0.0.1:80,, [::1]:80", ("[::1]:80", "10.0.0.1:80")),
        (["10.0.0.1:80", "10.0.0.2:80"], ("10.0.0.1:80", "10.0.0.2:80")),
        (7.0, ()),
        (None, ()),
        ("", ()),
    ],
    ids=str,
)
def test_endpoints_are_a_list_or_a_text(value: object, expected: tuple[str, ...]) -> None:
    assert endpoints_in(value) == expected


def test_endpoints_of_an_empty_text() -> None:
    assert endpoints_of(" , ") == ()


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 62_000, 3_000_000])
def test_piece_is_what_the_stubs_make_of_it(phase: Phase, ends: bool, size: int) -> None:
    piece = bytes(size)
    expected = BodyAnswer(phase, piece, is_streamed=True, end_of_stream=ends)
    made = b"".join(encode_piece(phase, piece, end_of_stream=ends))
    assert decode_answer(made) == (expected, {})
    assert made == encode_answer(expected)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("size", [0, 1, 127, 62_000])
def test_part_of_a_body_is_what_the_stubs_make_of_it(phase: Phase, ends: bool, size: int) -> None:
    made = b"".join(encode_body(phase, bytes(size), end_of_stream=ends))
    assert made == encode_part(BodyPart(phase, bytes(size), end_of_stream=ends))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("size", [0, 1, 110, 118, 119, 120, 130, 20_000])
def test_headers_are_what_the_stubs_make_of_them(phase: Phase, ends: bool, size: int) -> None:
    fields = [(b":path", b"/"), (b"name", b"v" * size), (b"n" * (size + 1), b"\xff")]
    part = HeadersPart(phase, tuple((name.decode(), value) for name, value in fields), end_of_stream=ends)
    assert encode_headers(phase, fields, end_of_stream=ends) == encode_part(part)


def test_metadata_has_values_of_every_kind() -> None:
    values = {"text": "a", "number": 1.5, "yes": True, "nothing": None, "list": ["a", {"b": 2.0}], "more": {"c": {}}}
    assert decode_part(encode_part(BodyPart(Phase.REQUEST, b""), metadata={"space": values}))[1] == {"space": values}
