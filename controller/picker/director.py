"""A pick from request to endpoint: what failed before is counted, then the profile of the pool chooses."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from controller.picker.answers import Outcome, Refusal
from controller.picker.endpoints import Endpoint
from controller.picker.health import Failure
from controller.picker.inflight import InFlight
from controller.picker.pools import PoolTable
from controller.picker.requests import PickRequest, Try
from controller.picker.scheduling.profile import Profile

log = logging.getLogger(__name__)

RETRIES: Final = 2
"""nginx allows ten internal redirects per request, of which each retry takes two."""
RETRY_AFTER: Final = 1
"""Seconds; pods become ready, and pools are read, within about that."""


class Director:
    """Picks endpoints and counts what is in flight to them."""

    def __init__(self, *, table: PoolTable, in_flight: InFlight, profile: Profile, clock: Callable[[], float]) -> None:
        self._table = table
        self._in_flight = in_flight
        self._profile = profile
        self._clock = clock
        self.picks: Counter[tuple[str, Outcome]] = Counter()
        """By pool and outcome; the pool is empty where the configuration has none of that name."""

    def pick(self, request: PickRequest) -> Endpoint | Refusal:
        """The endpoint that serves a request, counted as in flight there, or the error that the client gets."""
        now = self._clock()
        if request.tried:
            self._count_failure(request, now=now)
        chosen = self._choose(request, now=now)
        if isinstance(chosen, Refusal):
            if request.tried:
                self._in_flight.expect_completion(request.id)
            self.count(request.pool, chosen.outcome)
            return chosen
        self._in_flight.start(request.id, chosen, now=now)
        if chosen.health.pause:
            chosen.health.picked(request.id, now=now)
        self.picks[request.pool, Outcome.PICKED] += 1
        return chosen

    def count(self, pool: str, outcome: Outcome) -> None:
        """Count a pick that ended without an endpoint."""
        self.picks[pool if pool in self._table.pools else "", outcome] += 1

    def _count_failure(self, request: PickRequest, *, now: float) -> None:
        """The last endpoint tried failed: release the request there at once, and count the failure."""
        last = request.tried[-1]
        ended = self._in_flight.end(request.id)
        pool = self._table.pools.get(request.pool)
        endpoint = ended.endpoint if ended and ended.endpoint.address == last.address else None
        if endpoint is None and pool is not None:
            endpoint = pool.by_address.get(last.address)
        if endpoint is not None:
            endpoint.health.failed(last.failure, request=request.id, now=now)
            log.warning(
                "endpoint failed",
                extra={"endpoint": endpoint.address, "failure": last.failure.value, "tries": len(request.tried)},
            )

    def _choose(self, request: PickRequest, *, now: float) -> Endpoint | Refusal:
        pool = self._table.pools.get(request.pool)
        if pool is None:
            if self._table.etag is None:
                message = "the endpoint picker has not read its pools yet"
                return Refusal(Outcome.NOT_READY, 503, message, RETRY_AFTER)
            return Refusal(Outcome.POOL_UNKNOWN, 500, "the gateway has no pool for this route")
        if not request.tried:
            if not pool.endpoints:
                return Refusal(Outcome.POOL_EMPTY, 503, "no model server is ready", RETRY_AFTER)
            return self._profile.run(request, pool.endpoints, now=now)
        if request.tried[-1].failure is Failure.TIMEOUT:
            # The endpoint may still work on it: a second one would generate the same answer again.
            return Refusal(Outcome.TIMED_OUT, 504, "the model server did not answer in time")
        left = _untried(pool.endpoints, request.tried)
        if not left or len(request.tried) > RETRIES:
            return Refusal(Outcome.EXHAUSTED, 502, "the model servers that were tried failed")
        return self._profile.run(request, left, now=now)


def _untried(endpoints: tuple[Endpoint, ...], tried: tuple[Try, ...]) -> list[Endpoint]:
    addresses = {one.address for one in tried}
    return [endpoint for endpoint in endpoints if endpoint.address not in addresses]
