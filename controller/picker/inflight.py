"""The requests in flight, from the pick to the completion, and how one whose end was lost is found.

nginx gathers ends for some milliseconds, so those of a worker that dies are lost. Its entries end with it where that is
seen (`workers`). Elsewhere a clock cannot tell a lost end from a long answer, but the endpoint can: it says how many
requests it has. Entries end without a completion only while the endpoint keeps reporting fewer than are counted. An
endpoint that lets none of them begin, and answers nothing else either, has not lost their ends: it hangs before it
counts them. Where an endpoint does not say, they end after an hour: hardly an answer takes as long, and one that does
is missed in a count, which is no harm.

A request's uncached bytes stand in its endpoint's backlog until its first byte. An answer that is not streamed comes as
a whole, so its bytes leave the backlog by the clock, when its first byte would be expected.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

from controller.picker.due import Due
from controller.picker.endpoints import Endpoint, Sent

SHORT_SCRAPES: Final = 5
"""Scrapes in a row that must fall short: a request under way, or being tokenised, is in no gauge of the server yet."""
SHORT_SECONDS: Final = 4.0
"""Between the first and the last of these scrapes, however often they come."""
LONGEST: Final = 3600.0
"""Seconds that a request is in flight at an endpoint that does not say how many it has."""
REMEMBERED: Final = 4096
"""Ids kept for a message that is still to come; some seconds of a busy gateway, about 0.5 MB."""
LONGEST_GUESS: Final = 60.0
"""Seconds that the bytes of an answer that is not streamed stand in the backlog at most."""


@dataclass
class _Shortfall:
    """An endpoint that reports fewer requests than are counted."""

    since: float
    """Start of the first scrape that fell short; only entries older than it are doubted."""
    least: int
    """The smallest difference so far."""
    scrapes: int


class InFlight:
    """Which request is at which endpoint. A request is at one endpoint at a time."""

    def __init__(self) -> None:
        self._sent: dict[str, Sent] = {}
        self._due = Due()
        """The requests whose bytes leave the backlog by the clock."""
        self._completed: OrderedDict[str, Sent | None] = OrderedDict()
        """Requests whose completion came before their pick."""
        self._released: OrderedDict[str, Sent | None] = OrderedDict()
        """Requests that were let go before their completion; None where that was for a refusal."""
        self._short: dict[Endpoint, _Shortfall] = {}
        self.expired = 0
        """Entries ended without a completion: their worker was no more, or their endpoint reported fewer requests."""

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def requests(self) -> Collection[Sent]:
        """Each of them, oldest first."""
        return self._sent.values()

    def queued(self, request: str, seconds: float) -> None:
        """A request that was just sent had waited for so long to be picked for."""
        if (sent := self._sent.get(request)) is not None:
            sent.queued = seconds

    def start(self, request: str, sent: Sent) -> bool:
        """Count a request that is sent to an endpoint; False when its completion came before."""
        if self._completed and request in self._completed:
            del self._completed[request]
            return False
        if request in self._sent:
            self.end(request)
        endpoint = sent.endpoint
        self._sent[request] = endpoint.open[request] = sent
        endpoint.backlog += sent.size
        endpoint.tokens += sent.prompt_bytes // 4
        sent.ahead = endpoint.backlog
        if sent.adapter:
            _take_adapter(endpoint, sent)
        if not sent.is_streamed and sent.size:
            wait = min(sent.memory.rates.expected(sent.ahead, endpoint.slowness), LONGEST_GUESS)
            self._due.add(sent, sent.at + wait)
        return True

    def settle(self, now: float) -> None:
        """Take out of the backlogs what the clock says was computed."""
        for sent in self._due.take(now):
            _leave_backlog(sent)

    def first_byte(self, request: str, *, waited: float) -> Sent | None:
        """The first byte of an answer came, so many seconds after the request was sent; None when not in flight."""
        sent = self._sent.get(request)
        if sent is not None:
            _leave_backlog(sent)
            if sent.waited is None:
                sent.waited = waited
        return sent

    def end(self, request: str) -> Sent | None:
        """Take a request out of flight; None when it is not in flight."""
        sent = self._sent.pop(request, None)
        if sent is None:
            return None
        endpoint = sent.endpoint
        del endpoint.open[request]
        _leave_backlog(sent)
        if sent.due:
            self._due.drop(sent)
        endpoint.tokens -= sent.prompt_bytes // 4
        if sent.adapter:
            left = endpoint.adapters_in_use[sent.adapter] - 1
            if left:
                endpoint.adapters_in_use[sent.adapter] = left
            else:
                del endpoint.adapters_in_use[sent.adapter]
        return sent

    def expect_pick(self, request: str) -> None:
        """Remember a request that was complete before its pick: a client that hangs up at once."""
        _remember(self._completed, request, None)

    def expect_completion(self, request: str, sent: Sent | None = None) -> None:
        """Remember a request that is not in flight any more, although its completion will come."""
        _remember(self._released, request, sent)

    def was_released(self, request: str) -> bool:
        """Whether the completion of a request is expected, although it is not in flight."""
        return request in self._released

    def was_forgotten(self, request: str) -> bool:
        """Whether it was let go with its endpoint, which is no more, whoever has the address since."""
        return request in self._released and self._released[request] is None

    def released(self, request: str) -> Sent | None:
        """A request that was let go before its first byte, which came."""
        return self._released.get(request)

    def take_released(self, request: str) -> Sent | None:
        """A request that was let go before its completion, which came; None where that is known already."""
        return self._released.pop(request, None)

    def compare(self, endpoint: Endpoint, *, reported: int, scraped_at: float) -> int:
        """Compare with what the endpoint reports, and end the oldest entries that it cannot have any more.

        `reported` counts every request that the endpoint has. Returns how many entries were ended.
        """
        if len(endpoint.open) <= reported:
            self._short.pop(endpoint, None)
            return 0
        short = self._short.get(endpoint) or _Shortfall(scraped_at, len(endpoint.open), 0)
        # Insertion order is the order of sending, so the doubtful entries stand first.
        doubted = sum(1 for _ in takewhile(lambda sent: sent.at < short.since, endpoint.open.values()))
        if doubted <= reported:
            self._short.pop(endpoint, None)
            return 0
        short.least = min(short.least, doubted - reported)
        short.scrapes += 1
        self._short[endpoint] = short
        if short.scrapes < SHORT_SCRAPES or scraped_at - short.since < SHORT_SECONDS:
            return 0
        del self._short[endpoint]
        for request, sent in tuple(islice(endpoint.open.items(), short.least)):
            if sent.waited is None and endpoint.heard_at < sent.at:
                endpoint.health.missed(request=request, sent_at=sent.at, now=scraped_at)
            self._expire(request, sent)
        return short.least

    def interrupt(self, endpoint: Endpoint) -> None:
        """Forget a started comparison: there was no reading."""
        self._short.pop(endpoint, None)

    def outlive(self, endpoint: Endpoint, *, now: float) -> int:
        """End the entries of an endpoint that does not say how many it has, after `LONGEST`. Returns how many."""
        outlived = tuple(takewhile(lambda item: item[1].at < now - LONGEST, endpoint.open.items()))
        for request, sent in outlived:
            self._expire(request, sent)
        return len(outlived)

    def lose(self, worker: int) -> int:
        """End the entries of a worker of NGINX that is no more. Returns how many."""
        lost = [(request, sent) for request, sent in self._sent.items() if sent.worker == worker]
        for request, sent in lost:
            self._expire(request, sent)
        return len(lost)

    def _expire(self, request: str, sent: Sent) -> None:
        self.end(request)
        self.expect_completion(request, sent)
        self.expired += 1

    def forget(self, endpoint: Endpoint) -> None:
        """End every request of an endpoint that is no more."""
        self._short.pop(endpoint, None)
        for request in list(endpoint.open):
            self.end(request)
            self.expect_completion(request)


def _remember(ids: OrderedDict[str, Sent | None], request: str, sent: Sent | None) -> None:
    ids[request] = sent
    if len(ids) > REMEMBERED:
        ids.popitem(last=False)


def _leave_backlog(sent: Sent) -> None:
    if sent.is_pending:
        sent.is_pending = False
        sent.endpoint.backlog -= sent.size


def _take_adapter(endpoint: Endpoint, sent: Sent) -> None:
    sent.is_loading = sent.adapter not in endpoint.adapters
    endpoint.use_adapter(sent.adapter)
    endpoint.adapters_in_use[sent.adapter] = endpoint.adapters_in_use.get(sent.adapter, 0) + 1
