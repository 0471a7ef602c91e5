"""Follows the control plane: asks for what is newer, applies it, and asks again.

Whatever fails, nginx goes on with what it has.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from controller.agent.apply import Applied
from controller.agent.metrics import Metrics
from controller.agent.standing import Standing
from controller.agent.tries import tries
from controller.bundle import Bundle
from controller.errors import ControlPlaneFailed, InfergateError, NginxRefused
from controller.pools import Pools, pools_of
from controller.wire import POLL_WAIT, Delivery, refusal_of

log = logging.getLogger(__name__)

_AT_ONCE: Final = 0.1
"""Seconds within which a delivery comes that was there before it was asked for."""
_LONGEST_REST: Final = 2.0
"""Seconds."""


class Outcome(Protocol):
    """What became of a bundle."""

    @property
    def serving(self) -> bool: ...
    @property
    def refusal(self) -> NginxRefused | None: ...
    @property
    def seconds(self) -> float: ...


class DataPlane(Protocol):
    """nginx and its pools."""

    @property
    def reload_pause(self) -> float: ...
    async def resume(self) -> Applied | NginxRefused | None: ...
    async def apply(self, bundle: Bundle) -> Outcome: ...
    async def apply_pools(self, pools: Pools) -> None: ...


class Source(Protocol):
    """Where deliveries come from."""

    async def fetch(self, *, version: str, etag: str, wait: float) -> Delivery | None: ...


class Follower:
    """Brings the newest delivery to one data plane."""

    def __init__(
        self,
        source: Source,
        data_plane: DataPlane,
        standing: Standing,
        *,
        metrics: Metrics,
        rng: random.Random,
        fit: Callable[[Bundle], Bundle] = lambda bundle: bundle,
    ) -> None:
        """`fit` makes a bundle one for this machine."""
        self._source = source
        self._data_plane = data_plane
        self._standing = standing
        self._metrics = metrics
        self._backoff = tries(rng)
        self._fit = fit
        self._pools = pools_of(())
        """Those that were delivered last."""
        self._live_pools = self._pools
        """Those of the live version."""
        self._held: Bundle | None = None
        """The newest bundle, until it was tried."""
        self._etag = ""
        self._applied_at = -math.inf
        self._took = 0.0
        """Seconds of the last apply."""
        self._is_cut_off = False

    async def run(self) -> None:
        """Serve the last release again, then follow until cancelled."""
        await self._resume()
        await self._follow(takes_files=True)

    async def follow_pools(self) -> None:
        """Follow the pools alone, for the requests that still run, until cancelled."""
        await self._follow(takes_files=False)

    async def _resume(self) -> None:
        try:
            found = await self._data_plane.resume()
        except InfergateError as problem:
            log.error("last release cannot be served", extra={"problem": str(problem)})
            return
        if isinstance(found, Applied):
            details = {"version": found.version, "milliseconds": round(found.seconds * 1000, 1)}
            log.info("last release live", extra=details)
            self._standing.serves(found.version, seconds=found.seconds)
        elif found is not None:
            log.error("last release refused", extra={"problem": str(found)})

    async def _follow(self, *, takes_files: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._standing.looked_at = asked = loop.time()
            try:
                delivery = await self._fetch()
                if delivery is not None:
                    await self._take(delivery, takes_files=takes_files)
                    if rest := self._rest(delivery, asked=asked):
                        await asyncio.sleep(rest)
                        continue
                if self._held is not None and takes_files and not self._data_plane.reload_pause:
                    await self._apply(self._held)
                    self._held = None
            except ControlPlaneFailed as problem:
                self._metrics.polls.labels("failed").inc()
                if not self._is_cut_off:
                    log.warning("control plane cannot be asked", extra={"problem": str(problem)})
                self._is_cut_off = True
                await asyncio.sleep(self._backoff.delay())
            except InfergateError as problem:
                log.error("delivery cannot be applied and is tried again", extra={"problem": str(problem)})
                await asyncio.sleep(self._backoff.delay())
            else:
                self._backoff.reset()

    async def _fetch(self) -> Delivery | None:
        wait = POLL_WAIT if self._held is None else min(self._data_plane.reload_pause, POLL_WAIT)
        version = self._standing.statement.version
        delivery = await self._source.fetch(version=version, etag=self._etag, wait=wait)
        self._metrics.polls.labels("newer" if delivery else "nothing").inc()
        self._metrics.contact.set_to_current_time()
        if self._is_cut_off:
            log.info("control plane answers again")
        self._is_cut_off = False
        return delivery

    def _rest(self, delivery: Delivery, *, asked: float) -> float:
        """Seconds to wait before an apply: as long as the last one took, if the delivery waited for its end.

        So reloads take half of the time at most while changes stream in, and one change alone waits for nothing.
        """
        now = asyncio.get_running_loop().time()
        if delivery.files is None or asked - self._applied_at > _AT_ONCE or now - asked > _AT_ONCE:
            return 0.0
        return min(self._took, _LONGEST_REST)

    async def _take(self, delivery: Delivery, *, takes_files: bool) -> None:
        pools = delivery.pools or self._pools
        if delivery.files is not None and takes_files:
            was_held, self._held = self._held, Bundle(delivery.gateway, delivery.version, delivery.files, pools)
            if (pause := self._data_plane.reload_pause) and was_held is None:
                details = {"version": delivery.version, "seconds": pause}
                log.warning("reload waits for streams of earlier versions to end", extra=details)
        elif self._held is not None:
            self._held = replace(self._held, pools=pools)
        is_next = self._held is not None and takes_files and not self._data_plane.reload_pause
        if delivery.pools is not None and not is_next:
            is_behind = self._held is not None or not takes_files
            await self._data_plane.apply_pools(_with(pools, self._live_pools) if is_behind else pools)
            self._metrics.pools.inc()
            log.info("endpoints live", extra={"etag": delivery.etag})
        self._pools, self._etag = pools, delivery.etag
        # Files count as had from here on. While the instance ends they are not wanted, and must not be sent again.
        self._standing.had(version=delivery.version, etag=delivery.etag)

    async def _apply(self, bundle: Bundle) -> None:
        standing = self._standing
        standing.applying = bundle.version
        try:
            outcome = await self._data_plane.apply(self._fit(bundle))
        except InfergateError as problem:
            self._metrics.bundles.labels("failed").inc()
            standing.fails(str(problem))
            raise
        finally:
            standing.applying = ""
        self._metrics.bundles.labels("applied" if outcome.serving else "refused").inc()
        self._metrics.seconds.observe(outcome.seconds)
        self._applied_at, self._took = asyncio.get_running_loop().time(), outcome.seconds
        details = {"version": bundle.version, "milliseconds": round(outcome.seconds * 1000, 1)}
        if outcome.serving:
            self._live_pools = bundle.pools
            standing.serves(bundle.version, seconds=outcome.seconds)
            log.info("live", extra=details)
        else:
            standing.refuses(bundle.version, refusal_of(outcome.refusal), seconds=outcome.seconds)
            log.error("bundle refused", extra={**details, "problem": str(outcome.refusal)})


def _with(pools: Pools, live: Pools) -> Pools:
    """Pools, and those that only the live version has."""
    names = {pool.name for pool in pools.pools}
    kept = tuple(pool for pool in live.pools if pool.name not in names)
    return pools_of((*pools.pools, *kept)) if kept else pools
