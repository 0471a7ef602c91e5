"""Finds endpoints that hang: they take requests, may even answer scrapes, and send no token."""

import logging
from typing import Final

from controller.picker.endpoints import Endpoint

log = logging.getLogger(__name__)

LEAST_WAIT: Final = 30.0
"""Seconds without a first byte that say nothing."""
TIMES_EXPECTED: Final = 5.0
"""How much longer than expected a first byte may take: a long prompt in a queue is not a fault."""


def miss_overdue(endpoint: Endpoint, *, now: float) -> None:
    """Count streamed requests whose first byte is overdue against their endpoint, each once."""
    for request, sent in endpoint.open.items():
        if sent.at > now - LEAST_WAIT:
            # Oldest first, so the others are younger.
            return
        if sent.waited is not None or not sent.is_streamed or sent.is_overdue:
            continue
        expected = sent.memory.rates.expected(sent.ahead, endpoint.slowness)
        if now - sent.at > TIMES_EXPECTED * expected:
            sent.is_overdue = True
            endpoint.health.missed(request=request, sent_at=sent.at, now=now)
            log.warning("first byte overdue", extra={"endpoint": endpoint.address, "waited": round(now - sent.at, 1)})
