"""Answers to a pick: where NGINX goes next, or an error that the client gets as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Protocol

from controller.headers import (
    ENDPOINT_HEADER,
    MODEL_HEADER,
    SESSION_TOKEN_HEADER,
    STREAMS_HEADER,
    TARGET_HEADER,
    USAGE_HEADER,
)
from controller.picker.endpoints import Endpoint
from controller.picker.errors import error_body
from controller.picker.flow_control.refusals import REASON_HEADER
from controller.picker.requests import PickRequest

HeaderList = list[tuple[bytes, bytes]]

_ELSEWHERE: Final = b"HTTP/1.1 200 OK\r\nx-accel-redirect: %b\r\ncontent-length: 0\r\n\r\n"
# Pieces of an answer to a pick: joining a few takes less than formatting lines.
_PICKED: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-accel-redirect: "
_ENDPOINT: Final = f"\r\n{ENDPOINT_HEADER}: ".encode()
_FALLBACKS: Final = b"\r\nx-gateway-destination-endpoint-fallbacks: "
_STREAMS: Final = f"\r\n{STREAMS_HEADER}: 1".encode()
_USAGE: Final = f"\r\n{USAGE_HEADER}: 1".encode()
_MODEL: Final = f"\r\n{MODEL_HEADER}: ".encode()
_SESSION_TOKEN: Final = f"\r\n{SESSION_TOKEN_HEADER}: ".encode()
_TARGET: Final = f"\r\n{TARGET_HEADER}: ".encode()
_REASON: Final = REASON_HEADER.encode()
LONGEST_MODEL: Final = 256
"""Characters of a model's name that the access log shows; a longer one is of nobody's model."""


class Outcome(StrEnum):
    """How a pick ended; the label of the metric, and the code in an error."""

    PICKED = "picked"
    LAST_RESORT = "picked_failing"
    """As above, of a pool whose endpoints all fail."""
    NOT_READY = "picker_not_ready"
    POOL_UNKNOWN = "pool_unknown"
    POOL_EMPTY = "no_endpoints"
    BUSY = "endpoints_busy"
    """A filter that asks for their load left none."""
    FILTERED = "endpoints_filtered_out"
    """Another filter left none."""
    EXHAUSTED = "endpoints_failed"
    TIMED_OUT = "endpoint_timed_out"
    LISTED = "models_listed"
    """The question was which models there are, or what one is, and the picker knew."""
    MODEL_UNKNOWN = "model_not_found"
    HUNG_UP = "client_hung_up"
    DROPPED = "not_admitted"
    NOT_FROM_GATEWAY = "gateway_headers_missing"
    NO_ROOM = "bodies_in_hand"
    """The bodies of other requests take all the memory that there is for them."""
    TOO_LARGE = "body_too_large"
    BROKEN = "picker_failed"
    """A part of the pool's profile failed, of which nothing is known but its exception."""


_REASONS: Final = {
    Outcome.NOT_READY: b"rejected-no-endpoints",
    Outcome.POOL_EMPTY: b"rejected-no-endpoints",
    Outcome.FILTERED: b"rejected-no-endpoints",
    Outcome.BUSY: b"rejected-saturated",
    Outcome.NO_ROOM: b"rejected-saturated",
}
"""Values are the field's; a refusal of the flow control brings its own."""


class ErrorAnswer(Protocol):
    """An error that a client gets."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> HeaderList:
        """Without the length of the body."""
        ...

    def body(self, path: str) -> bytes:
        """As JSON, in the shape of the API that has the path."""
        ...


@dataclass(frozen=True)
class Refusal:
    """An error for the client."""

    outcome: Outcome
    status: int
    message: str
    retry_after: int | None = None
    """Seconds."""
    kind: str = "server_error"
    """The type of OpenAI's errors."""

    @property
    def headers(self) -> HeaderList:
        """Headers of the answer, without its length."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if self.outcome in _REASONS:
            headers.append((_REASON, _REASONS[self.outcome]))
        return headers

    def body(self, path: str) -> bytes:
        """See `ErrorAnswer`."""
        code = self.outcome.value
        return error_body(path, status=self.status, message=self.message, kind=self.kind, code=code)


def answer_of_pick(request: PickRequest, chosen: Sequence[Endpoint], *, more: bytes = b"") -> bytes:
    """Sends NGINX on to the first endpoint; the others are where it will be sent if that one fails.

    `more` are further header lines.
    """
    pieces = [_PICKED, request.then, _ENDPOINT, chosen[0].address.encode()]
    if len(chosen) > 1:
        pieces += (_FALLBACKS, ",".join([endpoint.address for endpoint in chosen[1:]]).encode())
    if request.is_streamed:
        pieces.append(_STREAMS)
    if request.reads_usage:
        pieces.append(_USAGE)
    if request.session_token:
        pieces += (_SESSION_TOKEN, request.session_token)
    model = request.model
    # A name that a header cannot hold is no model's.
    if model and len(model) <= LONGEST_MODEL and model.isprintable():
        pieces += (_MODEL, model.encode())
    if request.target:
        pieces += (_TARGET, request.target.encode())
    pieces += (b"\r\n", more, b"\r\n")
    return b"".join(pieces)


def answer_of_elsewhere(then: bytes) -> bytes:
    """Sends NGINX on to a location where somebody else is asked."""
    return _ELSEWHERE % then


def answer_of_models(listed: bytes) -> bytes:
    """A list of models as JSON."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(listed)
    return head + listed


def answer_of_refusal(refusal: ErrorAnswer, *, method: str, path: str, more: bytes = b"") -> bytes:
    """An error with its length; to HEAD without its body. `more` are further header lines."""
    body = refusal.body(path)
    lines = b"".join(b"%b: %b\r\n" % header for header in refusal.headers)
    status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}".encode()
    head = b"HTTP/1.1 %b\r\n%b%bcontent-length: %d\r\n\r\n" % (status, lines, more, len(body))
    return head if method == "HEAD" else head + body
