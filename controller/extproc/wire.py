"""The messages that every exchange consists of, written by hand.

They are the same bytes that the stubs make. Headers take a third of the time so, and bodies are not copied.

Source: envoy/service/ext_proc/v3/external_processor.proto; Protocol Buffers, Encoding.
"""

from collections.abc import Iterable
from typing import Final

from controller.extproc.messages import Phase

CHUNK: Final = 62_000
"""Bytes of body in one message at most, so that Envoy takes it as well."""

_ENDS: Final = b"\x10\x01"
_LAST: Final = b"\x18\x01"
_HEADERS_KEYS: Final = {Phase.REQUEST: b"\x12", Phase.RESPONSE: b"\x1a"}
"""Of the fields `request_headers` and `response_headers` of a ProcessingRequest."""
_PART_KEYS: Final = {Phase.REQUEST: b"\x22", Phase.RESPONSE: b"\x2a"}
"""Of the fields `request_body` and `response_body` of a ProcessingRequest."""
_BODY_KEYS: Final = {Phase.REQUEST: b"\x1a", Phase.RESPONSE: b"\x22"}
"""Of these fields of a ProcessingResponse."""


def encode_headers(phase: Phase, fields: Iterable[tuple[bytes, bytes]], *, end_of_stream: bool) -> bytes:
    """A ProcessingRequest with headers, as `encode_part` makes it. Names are ASCII.

    What else such a message says may stand behind it: fields come in any order.
    """
    found = b"".join([_header(name, value) for name, value in fields])
    held = b"\x0a" + varint(len(found)) + found + (_LAST if end_of_stream else b"")
    return _HEADERS_KEYS[phase] + varint(len(held)) + held


def encode_body(phase: Phase, chunk: bytes, *, end_of_stream: bool) -> tuple[bytes, bytes, bytes]:
    """A ProcessingRequest with a piece of a body, as `encode_part` makes it: in pieces, so that it is not copied."""
    tail = _ENDS if end_of_stream else b""
    head = b"\x0a" + varint(len(chunk)) if chunk else b""
    return _PART_KEYS[phase] + varint(len(head) + len(chunk) + len(tail)) + head, chunk, tail


def encode_piece(phase: Phase, piece: bytes, *, end_of_stream: bool) -> tuple[bytes, bytes, bytes]:
    """A ProcessingResponse with a piece of a streamed body, as `encode_answer` makes it: in pieces as well."""
    tail = _ENDS if end_of_stream else b""
    head = b"\x0a" + varint(len(piece)) if piece else b""
    size = len(head) + len(piece) + len(tail)
    for key in (b"\x1a", b"\x1a", b"\x0a", _BODY_KEYS[phase]):
        # Fields of BodyMutation, CommonResponse, BodyResponse and ProcessingResponse, from the inside out.
        length = key + varint(size)
        head = length + head
        size += len(length)
    return head, piece, tail


def chunks_of(body: bytes, *, size: int = CHUNK) -> Iterable[bytes]:
    """A body in pieces; one empty piece for an empty body."""
    if len(body) <= size:
        return (body,)
    return (body[start : start + size] for start in range(0, len(body), size))


def varint(number: int) -> bytes:
    """A number as messages have it: seven bits in each byte, the last ones first."""
    if number < 128:
        return bytes((number,))
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _header(name: bytes, value: bytes) -> bytes:
    """A HeaderValue within its HeaderMap."""
    names, values = len(name), len(value)
    if value and names + values < 124:
        return b"\x0a%c\x0a%c%b\x1a%c%b" % (names + values + 4, names, name, values, value)
    held = b"\x0a" + varint(names) + name + (b"\x1a" + varint(values) + value if value else b"")
    return b"\x0a" + varint(len(held)) + held
