"""Finds endpoints that hang: they take requests, may even answer scrapes, and send no token.

A streamed answer without a first byte tells of it by itself. One that is not streamed, or that has begun, may be silent
for long; it is overdue when the endpoint says that it has requests, and counts no token for as long as a first byte may
take.
"""

import logging
from typing import Final

from controller.picker.endpoints import Endpoint, Sent

log = logging.getLogger(__name__)

LEAST_WAIT: Final = 30.0
"""Seconds without a first byte that say nothing, unless a policy says otherwise."""
TIMES_EXPECTED: Final = 5.0
"""How much longer than expected a first byte may take: a long prompt in a queue is not a fault."""


def miss_overdue(endpoint: Endpoint, *, now: float) -> None:
    """Count requests that are overdue against their endpoint, each once."""
    stalled = 0.0 if endpoint.stalled_since is None else now - endpoint.stalled_since
    for request, sent in endpoint.open.items():
        waited = now - sent.at
        if waited <= endpoint.patience:
            # Oldest first, so the others are younger.
            return
        silent = waited if sent.is_streamed and sent.waited is None else min(waited, stalled)
        if not sent.is_overdue and silent > _limit(sent):
            sent.is_overdue = True
            endpoint.health.missed(request=request, sent_at=sent.at, now=now)
            log.warning("answer overdue", extra={"endpoint": endpoint.address, "silent": round(silent, 1)})


def _limit(sent: Sent) -> float:
    """Seconds without a token that it may take."""
    timeout = sent.memory.first_byte_timeout
    if timeout is not None:
        return timeout
    return max(LEAST_WAIT, TIMES_EXPECTED * sent.memory.rates.expected(sent.ahead, sent.endpoint.slowness))
