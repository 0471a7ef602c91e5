"""What the client of a request that is not admitted gets."""

import json

import pytest

from controller.picker.flow_control.refusals import DROPS, Drop, Refusal

REFERENCE_REASONS = {
    "rejected-saturated",
    "rejected-no-endpoints",
    "rejected-ttl-expired",
    "rejected-context-cancelled",
    "rejected-shutting-down",
    "evicted-queue-pressure",
    "evicted-priority",
}


@pytest.mark.parametrize(
    ("drop", "status", "reason"),
    [
        (Drop.QUEUE_FULL, 429, "rejected-saturated"),
        (Drop.SHED, 429, "rejected-saturated"),
        (Drop.TTL, 429, "rejected-ttl-expired"),
        (Drop.DISPLACED, 429, "evicted-priority"),
        (Drop.CROWDED_OUT, 429, "evicted-queue-pressure"),
        (Drop.NO_ENDPOINTS, 503, "rejected-no-endpoints"),
        (Drop.NO_ENDPOINTS_TTL, 503, "rejected-no-endpoints"),
        (Drop.SHUTTING_DOWN, 503, "rejected-shutting-down"),
        (Drop.WITHDRAWN, 503, "rejected-context-cancelled"),
    ],
)
def test_refusal(drop: Drop, status: int, reason: str) -> None:
    refusal = Refusal(drop, 7)
    headers = dict(refusal.headers)
    error = json.loads(refusal.body("/v1/completions"))["error"]
    assert (refusal.status, error["code"], headers[b"x-llm-d-request-dropped-reason"]) == (
        status,
        reason,
        reason.encode(),
    )
    assert headers[b"retry-after"] == b"7"
    assert headers[b"content-type"] == b"application/json"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("rate_limit_error" if status == 429 else "server_error")


def test_every_drop_is_told_in_the_words_of_the_reference() -> None:
    assert set(DROPS) == set(Drop)
    assert {facts.reason for facts in DROPS.values()} == REFERENCE_REASONS
    assert {facts.status for facts in DROPS.values()} == {429, 503}
