"""The requests in flight, from the pick to the completion, and how one whose end was lost is found.

nginx keeps the ends that the picker has not taken for a minute, in bounded memory, so one can be lost. A clock cannot
tell a lost end from a long answer, but the endpoint can: it says how many requests it has. Entries end without a
completion only while the endpoint keeps reporting fewer than are counted.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

from controller.picker.endpoints import Endpoint

SHORT_SCRAPES: Final = 5
"""Scrapes in a row that must fall short: a request under way, or being tokenised, is in no gauge of the server yet."""
REMEMBERED: Final = 4096
"""Ids kept for a message that is still to come; some seconds of a busy gateway, about 0.5 MB."""


@dataclass
class _Shortfall:
    """An endpoint that reports fewer requests than are counted."""

    since: float
    """Start of the first scrape that fell short; only entries older than it are doubted."""
    least: int
    """The smallest difference so far."""
    scrapes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is no longer in flight."""

    endpoint: Endpoint
    sent_at: float


class InFlight:
    """Which request is at which endpoint. A request is at one endpoint at a time."""

    def __init__(self) -> None:
        self._at: dict[str, Endpoint] = {}
        self._completed: OrderedDict[str, None] = OrderedDict()
        """Requests whose completion came before their pick."""
        self._released: OrderedDict[str, None] = OrderedDict()
        """Requests that were let go before their completion."""
        self._short: dict[Endpoint, _Shortfall] = {}
        self.expired = 0
        """Entries ended because their endpoint reported fewer requests."""

    def __len__(self) -> int:
        return len(self._at)

    def start(self, request: str, endpoint: Endpoint, *, now: float) -> None:
        """Count a request that is sent to an endpoint, unless its completion came before."""
        if self._completed and request in self._completed:
            del self._completed[request]
            return
        if request in self._at:
            self._at[request].open.pop(request, None)
        self._at[request] = endpoint
        endpoint.open[request] = now

    def end(self, request: str) -> Ended | None:
        """Take a request out of flight; None when it is not in flight."""
        endpoint = self._at.pop(request, None)
        if endpoint is None:
            return None
        return Ended(endpoint, endpoint.open.pop(request))

    def expect_pick(self, request: str) -> None:
        """Remember a request that was complete before its pick: a client that hangs up at once."""
        _remember(self._completed, request)

    def expect_completion(self, request: str) -> None:
        """Remember a request that is not in flight any more, although its completion will come."""
        _remember(self._released, request)

    def was_released(self, request: str) -> bool:
        """Whether the completion of a request was expected; forgets it."""
        if request in self._released:
            del self._released[request]
            return True
        return False

    def compare(self, endpoint: Endpoint, *, reported: int, scraped_at: float) -> int:
        """Compare with what the endpoint reports, and end the oldest entries that it cannot have any more.

        `reported` counts every request that the endpoint has. Returns how many entries were ended.
        """
        if len(endpoint.open) <= reported:
            self._short.pop(endpoint, None)
            return 0
        short = self._short.get(endpoint) or _Shortfall(scraped_at, len(endpoint.open), 0)
        # Insertion order is the order of sending, so the doubtful entries stand first.
        doubted = sum(1 for _ in takewhile(lambda sent: sent < short.since, endpoint.open.values()))
        if doubted <= reported:
            self._short.pop(endpoint, None)
            return 0
        short.least = min(short.least, doubted - reported)
        short.scrapes += 1
        self._short[endpoint] = short
        if short.scrapes < SHORT_SCRAPES:
            return 0
        del self._short[endpoint]
        for request in list(islice(endpoint.open, short.least)):
            self.end(request)
            self.expect_completion(request)
        self.expired += short.least
        return short.least

    def interrupt(self, endpoint: Endpoint) -> None:
        """Forget a started comparison: there was no reading."""
        self._short.pop(endpoint, None)

    def forget(self, endpoint: Endpoint) -> None:
        """End every request of an endpoint that is no more."""
        self._short.pop(endpoint, None)
        for request in list(endpoint.open):
            self.end(request)
            self.expect_completion(request)


def _remember(ids: OrderedDict[str, None], request: str) -> None:
    ids[request] = None
    if len(ids) > REMEMBERED:
        ids.popitem(last=False)
