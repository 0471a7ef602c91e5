"""The pools with their endpoints, and the file they come from."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from controller.headers import session_id
from controller.picker.endpoints import Endpoint, key_of
from controller.picker.index_budget import share_out
from controller.picker.inflight import InFlight
from controller.picker.memory import PoolMemory
from controller.picker.overdue import LEAST_WAIT
from controller.picker.prefix import capacity_of
from controller.picker.targets import ModelTargets
from controller.picker.trust import trusts_of
from controller.picker.watch import DEFAULT_WATCH, Watch, watch_of
from controller.plugins.types import AppliedPolicy
from controller.pools import FailureMode, ModelRewrite, Pool, PoolEndpoint, Pools, PoolTls, decode_pools

log = logging.getLogger(__name__)

GONE_AFTER: Final = 30
"""Scrapes in a row without an answer after which an endpoint that left its pools has nothing in flight any more."""
MOST_ADAPTERS: Final = 4096
"""Names of LoRA adapters remembered of a pool."""


@dataclass(frozen=True)
class PoolState:
    """One pool. Endpoints that are in several pools are shared, and so are their counts."""

    name: str
    endpoints: tuple[Endpoint, ...]
    by_address: Mapping[str, Endpoint]
    failure_mode: FailureMode
    memory: PoolMemory
    policy: AppliedPolicy
    watch: Watch
    is_prioritized: bool = False
    """Whether a route says how important some of its requests are."""
    targets: ModelTargets | None = None
    """Which models requests are given; None where every request keeps its own."""
    rewrites: tuple[ModelRewrite, ...] = ()

    @cached_property
    def by_session(self) -> Mapping[str, Endpoint]:
        """By what the tokens of sessions say of them."""
        return {session_id(self.name, endpoint.address): endpoint for endpoint in self.endpoints}


class PoolTable:
    """Every pool and endpoint that is known. An endpoint that left stays while requests are in flight to it, so that
    one whose readiness flaps comes back with its count."""

    def __init__(self, in_flight: InFlight, watch: Watch = DEFAULT_WATCH) -> None:
        self._in_flight = in_flight
        self._watch = watch
        """Of pools without a policy."""
        self._endpoints: dict[tuple[str, str, str], Endpoint] = {}
        self._memories: dict[str, PoolMemory] = {}
        self._elsewhere: dict[tuple[str, str, str], Endpoint] = {}
        """Endpoints of pools that somebody else picks for, whose models are told here."""
        self.pools: Mapping[str, PoolState] = {}
        self.listed: Mapping[str, PoolState] = {}
        """Those, and others of which nothing is known but their models: somebody else picks for them."""
        self.trusts: Mapping[str, PoolTls] = {}
        """How endpoints are known that are asked over TLS, by address."""
        self.served: Pools | None = None
        """As they were read; None until some were."""

    @property
    def etag(self) -> str | None:
        """Of the pools that are served; None until some were read."""
        return self.served.etag if self.served is not None else None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint to be scraped, those that left their pools included."""
        return tuple(self._endpoints.values())

    @property
    def listing(self) -> tuple[Endpoint, ...]:
        """Every endpoint to be asked for its models."""
        return tuple((self._elsewhere | self._endpoints).values())

    def apply(self, pools: Pools) -> None:
        """Serve these pools from here on. Of those that have another picker models are told, where somebody asks."""
        own = [pool for pool in pools.pools if pool.external is None]
        sources: dict[tuple[str, str, str], PoolEndpoint] = {}
        for pool in own:
            for source in pool.endpoints:
                sources[key_of(source)] = source
        for key, source in sources.items():
            if key in self._endpoints:
                self._endpoints[key].renew(source)
            else:
                self._endpoints[key] = Endpoint(source)
        self.trusts = trusts_of(pools.pools)
        addresses = {source.address for source in sources.values()}
        for key in self._endpoints.keys() - sources.keys():
            endpoint = self._endpoints[key]
            endpoint.retired = True
            if endpoint.address in addresses:
                # Another pod has the address: this one is no more, and nothing is in flight to it.
                self._in_flight.forget(endpoint)
        self.sweep()
        self._memories = {pool.name: self._memories.get(pool.name) or PoolMemory() for pool in own}
        self.pools = {pool.name: self._state_of(pool) for pool in own}
        self.listed = {**self.pools, **self._others([pool for pool in pools.pools if pool.external is not None])}
        self._watch_endpoints()
        self.served = pools
        self.digest_readings()

    def digest_readings(self) -> None:
        """Fit the prefix indexes to the caches that the endpoints last told of, and learn their adapters' names."""
        for endpoint in self._endpoints.values():
            wanted = capacity_of(endpoint.reading) if endpoint.reading else None
            if wanted is not None:
                endpoint.prefixes.wanted = wanted
        share_out(endpoint.prefixes for endpoint in self._endpoints.values())
        for pool in self.pools.values():
            listed = [model for endpoint in pool.endpoints for model in endpoint.models]
            pool.memory.models = {model.id for model in listed}
            told = {name for endpoint in pool.endpoints for name in adapters_in_use(endpoint)}
            told |= {model.id for model in listed if model.is_adapter}
            # vLLM names those that run or wait; one that is idle for a moment is an adapter still.
            pool.memory.adapters = told if len(pool.memory.adapters) > MOST_ADAPTERS else pool.memory.adapters | told
            # Some may be known by name from here on.
            pool.memory.found_counts.clear()

    def sweep(self) -> bool:
        """Forget endpoints that left their pools and have nothing in flight, or do not answer any more.

        Returns whether there were any.
        """
        known = len(self._endpoints)
        for endpoint in [endpoint for endpoint in self._endpoints.values() if endpoint.retired]:
            if endpoint.scrape_failures_in_a_row >= GONE_AFTER:
                self._in_flight.forget(endpoint)
            if not endpoint.open:
                del self._endpoints[endpoint.key]
        return len(self._endpoints) < known

    def _others(self, pools: Sequence[Pool]) -> Mapping[str, PoolState]:
        """Pools that somebody else picks for. An endpoint that is in a pool of ours as well is the same."""
        asked = [pool for pool in pools if pool.lists_models]
        known = self._elsewhere | self._endpoints
        sources = {key_of(source): source for pool in asked for source in pool.endpoints}
        self._elsewhere = {key: known.get(key) or Endpoint(source) for key, source in sources.items()}
        return {pool.name: self._listed_state_of(pool) for pool in asked}

    def _listed_state_of(self, pool: Pool) -> PoolState:
        endpoints = tuple(self._elsewhere[key_of(source)] for source in pool.endpoints)
        return PoolState(
            name=pool.name,
            endpoints=endpoints,
            by_address={},
            failure_mode=pool.failure_mode,
            memory=PoolMemory(),
            policy=pool.policy,
            watch=self._watch,
            rewrites=pool.rewrites,
        )

    def _state_of(self, pool: Pool) -> PoolState:
        endpoints = tuple(self._endpoints[key_of(source)] for source in pool.endpoints)
        memory = self._memories[pool.name]
        memory.rates.pods = max(1, len(endpoints))
        watch = watch_of(pool.policy.health, default=self._watch)
        memory.first_byte_timeout = watch.first_byte_timeout
        memory.named = frozenset(
            name for item in pool.rewrites for name in (*item.models, *(target.model for target in item.targets))
        )
        return PoolState(
            name=pool.name,
            endpoints=endpoints,
            by_address={endpoint.address: endpoint for endpoint in endpoints},
            failure_mode=pool.failure_mode,
            memory=memory,
            policy=pool.policy,
            is_prioritized=pool.is_prioritized,
            watch=watch,
            targets=ModelTargets(pool.rewrites, memory=memory.rewritten) if pool.rewrites else None,
            rewrites=pool.rewrites,
        )

    def _watch_endpoints(self) -> None:
        """Watch each endpoint as closely as the strictest of its pools asks for; one that left, as before."""
        watches: dict[Endpoint, list[Watch]] = {}
        for pool in self.pools.values():
            for endpoint in pool.endpoints:
                watches.setdefault(endpoint, []).append(pool.watch)
        for endpoint, asked in watches.items():
            endpoint.scrape_interval = min(watch.scrape_interval for watch in asked)
            endpoint.patience = min(watch.first_byte_timeout or LEAST_WAIT for watch in asked)


def adapters_in_use(endpoint: Endpoint) -> tuple[str, ...]:
    """LoRA adapters of requests that run or wait at an endpoint, as its last reading says."""
    reading = endpoint.reading
    return (*reading.running_adapters, *reading.waiting_adapters) if reading else ()


class PoolsSource(Protocol):
    """Where pools come from."""

    errors: int
    """Times they could not be read."""

    def refresh(self) -> bool:
        """Serve the newest; whether others are served now."""
        ...


class PoolsFile:
    """The pools file, read again whenever it is another one. It is replaced by rename, never written in place."""

    def __init__(self, path: Path, table: PoolTable) -> None:
        self._path = path
        self._table = table
        self._seen: tuple[int, int, int] | None = None
        self._is_missing = False
        self.errors = 0
        """Times the file could not be read."""

    def refresh(self) -> bool:
        """Read the file if it changed; whether other pools are served now. Keeps the last when it is unreadable."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_ino, status.st_mtime_ns, status.st_size)
                self._is_missing = False
                if identity == self._seen:
                    return False
                self._seen = identity
                self._table.apply(decode_pools(file.read()))
        except FileNotFoundError:
            # Before the first bundle there is no file; one that disappears later is a failure, counted once.
            if self._table.etag is not None and not self._is_missing:
                self._failed("it does not exist any more")
            self._is_missing = True
            self._seen = None
            return False
        except (OSError, ValueError) as error:
            self._failed(str(error))
            return False
        log.info("pools read", extra={"etag": self._table.etag, "pools": len(self._table.pools)})
        return True

    def _failed(self, reason: str) -> None:
        self.errors += 1
        log.error("pools file unreadable", extra={"path": str(self._path), "reason": reason})
