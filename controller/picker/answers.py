"""Answers to a pick: where NGINX goes next, or an error that the client gets as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from controller.bundle import ENDPOINT_HEADER

HeaderList = list[tuple[bytes, bytes]]

_ENDPOINT: Final = ENDPOINT_HEADER.encode()
_NO_BODY: Final = (b"content-length", b"0")


class Outcome(StrEnum):
    """How a pick ended; the label of the metric, and the code in an error."""

    PICKED = "picked"
    NOT_READY = "picker_not_ready"
    POOL_UNKNOWN = "pool_unknown"
    POOL_EMPTY = "no_endpoints"
    EXHAUSTED = "endpoints_failed"
    TIMED_OUT = "endpoint_timed_out"
    HUNG_UP = "client_hung_up"
    NOT_FROM_GATEWAY = "gateway_headers_missing"


@dataclass(frozen=True)
class Refusal:
    """An error for the client, in the shape of OpenAI's API."""

    outcome: Outcome
    status: int
    message: str
    retry_after: int | None = None
    """Seconds."""

    @property
    def headers(self) -> HeaderList:
        """Headers of the answer, without its length."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        return headers

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        error = {"message": self.message, "type": "server_error", "param": None, "code": self.outcome.value}
        return msgspec.json.encode({"error": error})


def headers_of_pick(then: bytes, address: str) -> HeaderList:
    """Headers that send NGINX on to the endpoint."""
    return [(b"x-accel-redirect", then), (_ENDPOINT, address.encode()), _NO_BODY]


def headers_of_refusal(refusal: Refusal, body: Sequence[int]) -> HeaderList:
    """Headers of an error with its length."""
    return [*refusal.headers, (b"content-length", str(len(body)).encode())]
