"""Rates endpoints by how long a request is expected to wait there.

The wait is counted in requests that stand before it. Requests that run share the server with the new one, so each
counts once; requests that wait are served first, so each counts once more; and as the KV cache gets full, the new one
waits until some of those that run have ended.

What this picker sent and what ended since the last reading is counted exactly, so a burst between two readings spreads.
Of a reading that is too old nothing is used: the endpoint is rated by what is in flight to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest


@dataclass(frozen=True)
class ExpectedWaitScorer:
    """1 for an endpoint without work, falling towards 0."""

    staleness: float
    """Seconds after which a reading is too old."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        oldest = now - self.staleness
        # The two frequent cases stand here: a call for each of 64 endpoints would double the time of a pick.
        return [
            1.0 / (1.0 + len(endpoint.open))
            if endpoint.answered_at < oldest
            else 1.0 / (1.0 + len(endpoint.open) + endpoint.foreign)
            if not endpoint.is_strained
            else 1.0 / (1.0 + expected_wait(endpoint))
            for endpoint in endpoints
        ]


def expected_wait(endpoint: Endpoint) -> float:
    """Requests that a further request has to wait for, given a fresh reading."""
    own = len(endpoint.open)
    wait: float = own + endpoint.foreign
    if endpoint.waiting:
        # Where a queue stands, what came since joined it, and what ended shortened it.
        wait += max(0, endpoint.waiting + own - endpoint.own_at_reading)
    if endpoint.kv_pressure:
        wait += endpoint.kv_pressure * (own + endpoint.foreign + 1)
    return wait
