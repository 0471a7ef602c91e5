"""Finds endpoints that hang: they take requests, may even answer scrapes, and send no token."""

import logging
from typing import Final

from controller.picker.endpoints import Endpoint, Sent

log = logging.getLogger(__name__)

LEAST_WAIT: Final = 30.0
"""Seconds without a first byte that say nothing, unless a policy says otherwise."""
TIMES_EXPECTED: Final = 5.0
"""How much longer than expected a first byte may take: a long prompt in a queue is not a fault."""


def miss_overdue(endpoint: Endpoint, *, now: float) -> None:
    """Count streamed requests whose first byte is overdue against their endpoint, each once."""
    for request, sent in endpoint.open.items():
        waited = now - sent.at
        if waited <= endpoint.patience:
            # Oldest first, so the others are younger.
            return
        if sent.waited is None and sent.is_streamed and not sent.is_overdue and waited > _limit(sent):
            sent.is_overdue = True
            endpoint.health.missed(request=request, sent_at=sent.at, now=now)
            log.warning("first byte overdue", extra={"endpoint": endpoint.address, "waited": round(waited, 1)})


def _limit(sent: Sent) -> float:
    """Seconds that its first byte may take."""
    timeout = sent.memory.first_byte_timeout
    if timeout is not None:
        return timeout
    return max(LEAST_WAIT, TIMES_EXPECTED * sent.memory.rates.expected(sent.ahead, sent.endpoint.slowness))
