"""A pick from request to endpoint: what failed before is counted, then the profile of the pool chooses."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from controller.picker.answers import Outcome, Refusal
from controller.picker.chunks import BYTES_PER_TOKEN, OFFSETS
from controller.picker.endpoints import Endpoint, Sent
from controller.picker.health import Failure
from controller.picker.inflight import InFlight
from controller.picker.model_names import Models, merged, models_of, unknown_model
from controller.picker.pools import PoolState, PoolTable, adapters_in_use
from controller.picker.requests import Headers, PickRequest, Try
from controller.picker.scheduling.matching import chunks_at, remember
from controller.picker.scheduling.profile import Profile
from controller.picker.scheduling.tracing import traced

log = logging.getLogger(__name__)

RETRIES: Final = 2
"""nginx allows ten internal redirects per request, of which each retry takes two."""
RETRY_AFTER: Final = 1
"""Seconds; pods become ready, and pools are read, within about that."""

Chosen = Sequence[Endpoint]
"""The endpoint that serves a request, then those to go to when it fails, in order."""


class Director:
    """Picks endpoints and counts what is in flight to them."""

    def __init__(
        self,
        *,
        table: PoolTable,
        in_flight: InFlight,
        profile_of: Callable[[PoolState], Profile],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._in_flight = in_flight
        self._profile_of = profile_of
        self._profiles: dict[str, tuple[PoolState, Profile]] = {}
        self._clock = clock
        self._failing: set[str] = set()
        """Pools of which this was logged."""
        self._broken: set[str] = set()
        """Pools whose profile raised an exception, which was logged."""
        self.picks: defaultdict[tuple[str, Outcome], int] = defaultdict(int)
        """By pool and outcome; the pool is empty where the configuration has none of that name."""

    def pick(self, request: PickRequest) -> Chosen | Refusal:
        """The endpoints for a request, counted as in flight at the first, or the error that the client gets."""
        now = self._clock()
        self._in_flight.settle(now)
        fallbacks = self._count_failure(request, now=now) if request.tried and not request.tries_are_counted else ()
        found = self._candidates(request)
        if isinstance(found, Refusal):
            return self._refuse(request, found)
        pool, candidates = found
        request.candidates = len(candidates)
        served = request.target or request.model
        if served and served in pool.memory.adapters:
            request.adapter = served
        request.reads_usage = request.tells_usage and pool.policy.usage
        profile = self.profile(pool)
        run = profile if request.trace is None else traced(profile, request.trace)
        preferred = fallbacks or _of_session(request, pool)
        chosen = run.run_preferring(preferred, request, candidates, now=now) if preferred else ()
        if chosen and request.trace is not None:
            request.trace.is_fallback = bool(fallbacks)
            request.trace.is_of_session = not fallbacks
        chosen = chosen or run.run(request, candidates, now=now)
        if not chosen:
            return self._refuse(request, _left_out(profile, request, candidates, now=now))
        if request.tried and request.tries_are_counted:
            # Whoever tells of them goes along the list by itself.
            chosen = chosen[: 1 + RETRIES - len(request.tried)]
        outcome = self._outcome(pool, chosen[0], now=now)
        request.is_last_resort = outcome is Outcome.LAST_RESORT
        self._send(request, pool, profile, chosen, now=now)
        self.picks[request.pool, outcome] += 1
        return chosen

    def _outcome(self, pool: PoolState, endpoint: Endpoint, *, now: float) -> Outcome:
        """Tells, and logs once, when a pool has nothing but endpoints that fail: they are used all the same."""
        if not endpoint.health.pause or endpoint.health.may_serve(now):
            self._failing.discard(pool.name)
            return Outcome.PICKED
        if pool.name not in self._failing:
            self._failing.add(pool.name)
            log.error("every endpoint fails, one is tried all the same", extra={"pool": pool.name})
        return Outcome.LAST_RESORT

    def _refuse(self, request: PickRequest, refusal: Refusal) -> Refusal:
        if request.tried and not request.tries_are_counted:
            self._in_flight.expect_completion(request.id)
        self.count(request.pool, refusal.outcome)
        self.refused(request, refusal.status)
        return refusal

    def refused(self, request: PickRequest, status: int) -> None:
        """Count a request that its client gets an error for instead of an endpoint."""
        pool = self._table.pools.get(request.pool)
        if pool is None:
            return
        counts = pool.memory.counts_of((request.model, request.target or request.model, request.priority))
        if not request.tried:
            counts.begin(request.size)
        counts.refuse(status)

    def refused_unread(self, pool: str, refusal: Refusal, *, size: int) -> None:
        """Count a request that is refused with so many bytes of its body read, in which no model was looked for."""
        self.count(pool, refusal.outcome)
        known = self._table.pools.get(pool)
        if known is not None:
            counts = known.memory.counts_of(("", "", 0))
            counts.begin(size)
            counts.refuse(refusal.status)

    def queued(self, request: PickRequest, seconds: float) -> None:
        """A request that was just picked for had waited for so long."""
        self._in_flight.queued(request.id, seconds)

    def failed(self, request: PickRequest, tried: Sequence[Try]) -> None:
        """Endpoints that were picked for a request failed, one after the other. It is in flight no more."""
        self._in_flight.end(request.id)
        self._in_flight.expect_completion(request.id)
        pool = self._table.pools.get(request.pool)
        for number, one in enumerate(tried, start=1 + len(request.tried)):
            endpoint = pool.by_address.get(one.address) if pool is not None else None
            if endpoint is not None:
                _count(endpoint, one, request=request.id, tries=number, now=self._clock())

    def broke(self, request: PickRequest) -> Refusal:
        """The error for a request whose pick raised the exception that is handled. It is not in flight."""
        self._in_flight.end(request.id)
        self._in_flight.expect_completion(request.id)
        if request.pool not in self._broken:
            self._broken.add(request.pool)
            log.exception("pick failed, so may others of the pool", extra={"pool": request.pool})
        return self._refuse(request, Refusal(Outcome.BROKEN, 500, "the endpoint picker failed"))

    def explains(self, pool: str) -> bool:
        """Whether clients of a pool may ask why an endpoint was chosen."""
        known = self._table.pools.get(pool)
        return known is not None and known.policy.explain

    def rewrites(self, pool: str) -> bool:
        """Whether requests of a pool may be given other models than those that they name."""
        known = self._table.pools.get(pool)
        return known is not None and known.targets is not None

    def target(self, pool: str, model: str, headers: Headers) -> str:
        """The model that a request is given for the one that it names; empty where it keeps its own."""
        known = self._table.pools.get(pool)
        if known is None or known.targets is None or not model:
            return ""
        return known.targets.draw(model, headers)

    def unknown(self, request: PickRequest) -> Refusal | None:
        """The error for a request whose model its pool does not have, where the pool's policy says so.

        A pool of which an endpoint lists nothing may have any model. The endpoints are asked anew.
        """
        pool = self._table.pools.get(request.pool)
        if pool is None or not pool.policy.refuse_unknown_models:
            return None
        if not request.model or request.tried or request.model in pool.memory.models:
            return None
        if not all(endpoint.models for endpoint in pool.endpoints) or _may_be_served(request.model, pool):
            return None
        self.doubt([request.pool])
        return self._refuse(request, unknown_model(request.model, models_of(pool, now=self._clock())))

    def doubt(self, pools: Iterable[str]) -> None:
        """Have the endpoints of pools asked anew for their models: somebody named one that they do not list."""
        for pool in pools:
            if pool in self._table.listed:
                for endpoint in self._table.listed[pool].endpoints:
                    endpoint.list_is_doubted = True

    def models(self, pools: Iterable[str]) -> Models:
        """What pools serve, and what stands for it, sorted by name; empty when no endpoint tells."""
        now = self._clock()
        listed = self._table.listed
        return merged(models_of(listed[pool], now=now) for pool in pools if pool in listed)

    def is_listed_alone(self, pool: str) -> bool:
        """Whether nothing is known of a pool but its models: somebody else picks for it."""
        return pool not in self._table.pools and pool in self._table.listed

    def count(self, pool: str, outcome: Outcome) -> None:
        """Count a pick that ended without an endpoint."""
        self.picks[pool if pool in self._table.pools else "", outcome] += 1

    def profile(self, pool: PoolState) -> Profile:
        """The profile of a pool, made again when the pool is another one."""
        known = self._profiles.get(pool.name)
        if known is not None and known[0] is pool:
            return known[1]
        profile = self._profile_of(pool)
        self._profiles = {name: one for name, one in self._profiles.items() if name in self._table.pools}
        self._profiles[pool.name] = (pool, profile)
        self._broken.discard(pool.name)
        return profile

    def _count_failure(self, request: PickRequest, *, now: float) -> Chosen:
        """The last endpoint tried failed: release the request there at once, and count the failure.

        Returns where the request was to go next.
        """
        last = request.tried[-1]
        ended = self._in_flight.end(request.id)
        pool = self._table.pools.get(request.pool)
        endpoint = ended.endpoint if ended and ended.endpoint.address == last.address else None
        if endpoint is None and pool is not None and not self._in_flight.was_forgotten(request.id):
            endpoint = pool.by_address.get(last.address)
        if endpoint is not None:
            _count(endpoint, last, request=request.id, tries=len(request.tried), now=now)
        return ended.fallbacks if ended else ()

    def _candidates(self, request: PickRequest) -> tuple[PoolState, Sequence[Endpoint]] | Refusal:
        pool = self._table.pools.get(request.pool)
        if pool is None:
            if self._table.etag is None:
                message = "the endpoint picker has not read its pools yet"
                return Refusal(Outcome.NOT_READY, 503, message, RETRY_AFTER)
            return Refusal(Outcome.POOL_UNKNOWN, 500, "the gateway has no pool for this route")
        if not request.tried:
            if not pool.endpoints:
                return Refusal(Outcome.POOL_EMPTY, 503, "no model server is ready", RETRY_AFTER)
            if request.subset is None:
                return pool, pool.endpoints
            allowed = _allowed(pool.endpoints, request.subset)
            if not allowed:
                message = "no model server that the gateway allows is ready"
                return Refusal(Outcome.POOL_EMPTY, 503, message, RETRY_AFTER)
            return pool, allowed
        if request.tried[-1].failure is Failure.TIMEOUT:
            # The endpoint may still work on it: a second one would generate the same answer again.
            return Refusal(Outcome.TIMED_OUT, 504, "the model server did not answer in time")
        left = _untried(pool.endpoints, request.tried)
        if request.subset is not None:
            left = _allowed(left, request.subset)
        if not left or len(request.tried) > RETRIES:
            return Refusal(Outcome.EXHAUSTED, 502, "the model servers that were tried failed")
        return pool, left

    def _send(self, request: PickRequest, pool: PoolState, profile: Profile, chosen: Chosen, *, now: float) -> None:
        """Count the request at its endpoint, and remember there what it will have in its cache."""
        endpoint = chosen[0]
        hashes = request.hashes
        matched = chunks_at(request, endpoint) if hashes else 0
        request.cached_bytes = OFFSETS[matched]
        sent = Sent(
            endpoint=endpoint,
            at=now,
            memory=pool.memory,
            size=request.prompt_bytes - request.cached_bytes,
            prompt_bytes=request.prompt_bytes,
            matched_bytes=request.cached_bytes,
            adapter=request.adapter,
            model=(request.target or request.model) if request.reads_usage else "",
            is_streamed=request.is_streamed,
            fallbacks=tuple(chosen[1:]),
            worker=request.worker,
        )
        if self._in_flight.start(request.id, sent) and endpoint.health.pause:
            health = endpoint.health
            health.picked(request.id, now=now, is_unanswered=health.probe in endpoint.open)
        memory = pool.memory
        memory.rates.sent(matched=matched, chunks=len(hashes))
        if hashes:
            ratios = memory.hit_ratios
            # Their bounds are tenths, so the place of a share is counted and not looked for.
            ratios[-(-10 * matched // len(hashes))] += 1
            ratios[-1] += matched / len(hashes)
        memory.predicted.add(request.prompt_bytes // BYTES_PER_TOKEN, request.cached_bytes // BYTES_PER_TOKEN)
        for witness in profile.witnesses:
            witness.sent(request, endpoint, now=now)
        remember(request, endpoint)
        # Last: what fails before is counted as refused.
        model = request.model
        labels = (model, request.target or model, request.priority)
        counts = memory.found_counts.get(labels) or memory.counts_of(labels)
        if not request.tried:
            counts.begin(request.size)
        sent.counts = counts
        endpoint.picks += 1


def _left_out(profile: Profile, request: PickRequest, candidates: Sequence[Endpoint], *, now: float) -> Refusal:
    """The error for a request for which the filters leave no endpoint.

    Only load is a reason to come again, which is what 429 says: labels that no pod has are a mistake of the pool.
    """
    if profile.is_busy(request, candidates, now=now):
        return Refusal(Outcome.BUSY, 429, "every model server of the pool is busy", RETRY_AFTER, "rate_limit_error")
    return Refusal(Outcome.FILTERED, 503, "no model server of the pool fits the request", RETRY_AFTER)


def _of_session(request: PickRequest, pool: PoolState) -> Chosen:
    """The endpoint that the session of a request is on; none when there is no such endpoint, or it failed."""
    endpoint = pool.by_session.get(request.session) if request.session and not request.tried else None
    return () if endpoint is None else (endpoint,)


def _may_be_served(model: str, pool: PoolState) -> bool:
    """Whether something but the list of models as it was digested last speaks for a model."""
    if any(not rewrite.models or model in rewrite.models for rewrite in pool.rewrites):
        return True
    return not pool.endpoints or any(
        model in adapters_in_use(endpoint) or any(model == one.id for one in endpoint.models)
        for endpoint in pool.endpoints
    )


def _count(endpoint: Endpoint, failed: Try, *, request: str, tries: int, now: float) -> None:
    endpoint.health.failed(failed.failure, request=request, now=now)
    log.warning(
        "endpoint failed",
        extra={"endpoint": endpoint.address, "failure": failed.failure.value, "tries": tries},
    )


def _untried(endpoints: tuple[Endpoint, ...], tried: tuple[Try, ...]) -> list[Endpoint]:
    addresses = {one.address for one in tried}
    return [endpoint for endpoint in endpoints if endpoint.address not in addresses]


def _allowed(endpoints: Sequence[Endpoint], subset: frozenset[str]) -> list[Endpoint]:
    return [
        endpoint
        for endpoint in endpoints
        if endpoint.address in subset or endpoint.address.rpartition(":")[0].strip("[]") in subset
    ]
