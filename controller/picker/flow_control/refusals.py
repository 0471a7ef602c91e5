"""Why a request is not admitted, and what its client is told.

429 says that others were first: the client may come again. 503 says that there is nobody to serve it. A refusal of the
flow control is never another status, so that a mistake in a configuration cannot look like one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from controller.picker.errors import error_body

REASON_HEADER: Final = "x-llm-d-request-dropped-reason"
"""To the client; values as in the reference."""
_REASON: Final = REASON_HEADER.encode()


class Drop(Enum):
    """Why a request ended without being admitted."""

    QUEUE_FULL = "queue_full"
    SHED = "shed"
    TTL = "ttl"
    DISPLACED = "displaced"
    """By a request of a higher band."""
    CROWDED_OUT = "crowded_out"
    """By a tenant of the same band that has fewer requests in the queue."""
    NO_ENDPOINTS = "no_endpoints"
    """The queue was full when there was no endpoint to serve it."""
    NO_ENDPOINTS_TTL = "no_endpoints_ttl"
    """It waited for an endpoint in vain, or the pool is no more."""
    SHUTTING_DOWN = "shutting_down"
    WITHDRAWN = "withdrawn"
    """The client hung up; it is told nothing."""


@dataclass(frozen=True)
class DropFacts:
    """What one kind of drop looks like from outside."""

    status: int
    reason: str
    """Value of `REASON_HEADER`, and the code in the error."""
    outcome: str
    """Label of the metric, one of the reference's outcomes."""
    message: str


DROPS: Final[Mapping[Drop, DropFacts]] = {
    Drop.QUEUE_FULL: DropFacts(
        429, "rejected-saturated", "RejectedCapacity", "the model servers are busy and the queue is full"
    ),
    Drop.SHED: DropFacts(
        429, "rejected-saturated", "RejectedCapacity", "the model servers are busy, and the request may be dropped"
    ),
    Drop.TTL: DropFacts(
        429, "rejected-ttl-expired", "EvictedTTL", "the model servers were busy for as long as the request could wait"
    ),
    Drop.DISPLACED: DropFacts(
        429, "evicted-priority", "EvictedOther", "the queue is full, and a more important request took the place"
    ),
    Drop.CROWDED_OUT: DropFacts(
        429, "evicted-queue-pressure", "EvictedOther", "the queue is full, and most of it came from the same client"
    ),
    Drop.NO_ENDPOINTS: DropFacts(
        503, "rejected-no-endpoints", "RejectedNoEndpoints", "no model server is ready, and the queue is full"
    ),
    Drop.NO_ENDPOINTS_TTL: DropFacts(503, "rejected-no-endpoints", "EvictedNoEndpoints", "no model server is ready"),
    Drop.SHUTTING_DOWN: DropFacts(503, "rejected-shutting-down", "RejectedOther", "the gateway is shutting down"),
    Drop.WITHDRAWN: DropFacts(
        503, "rejected-context-cancelled", "EvictedContextCancelled", "the client closed the connection"
    ),
}


@dataclass(frozen=True)
class Refusal:
    """An error for the client."""

    drop: Drop
    retry_after: int
    """Seconds."""

    @property
    def status(self) -> int:
        """429 or 503."""
        return DROPS[self.drop].status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer, without its length."""
        return [
            (b"content-type", b"application/json"),
            (b"retry-after", str(self.retry_after).encode()),
            (_REASON, DROPS[self.drop].reason.encode()),
        ]

    def body(self, path: str) -> bytes:
        """The error as JSON, in the shape of the API that has the path."""
        facts = DROPS[self.drop]
        kind = "rate_limit_error" if facts.status == 429 else "server_error"
        return error_body(path, status=facts.status, message=facts.message, kind=kind, code=facts.reason)
