"""Follows the control plane: asks for what is newer, applies it, and asks again.

Whatever fails, nginx goes on with what it has.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from controller.agent.apply import Applied
from controller.agent.backoff import Backoff
from controller.agent.metrics import Metrics
from controller.agent.standing import Standing
from controller.bundle import Bundle, Pools, pools_of
from controller.errors import ControlPlaneFailed, InfergateError, NginxRefused
from controller.wire import Delivery, refusal_of

log = logging.getLogger(__name__)


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

    async def resume(self) -> Applied | NginxRefused | None: ...
    async def apply(self, bundle: Bundle) -> Outcome: ...
    async def apply_pools(self, pools: Pools) -> None: ...


class Source(Protocol):
    """Where deliveries come from."""

    async def fetch(self, *, version: str, etag: str) -> Delivery | None: ...


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
        self._backoff = Backoff(rng)
        self._fit = fit
        self._pools = pools_of(())
        self._etag = ""
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
            self._standing.looked_at = loop.time()
            try:
                delivery = await self._fetch()
                if delivery is not None:
                    await self._take(delivery, takes_files=takes_files)
            except ControlPlaneFailed as problem:
                self._metrics.polls.labels("failed").inc()
                if not self._is_cut_off:
                    log.warning("control plane cannot be asked", extra={"problem": str(problem)})
                self._is_cut_off = True
                await asyncio.sleep(self._backoff.pause())
            except InfergateError as problem:
                # The next question is the same, so the same delivery is tried again.
                log.error("delivery cannot be applied and is tried again", extra={"problem": str(problem)})
                await asyncio.sleep(self._backoff.pause())
            else:
                self._backoff.reset()

    async def _fetch(self) -> Delivery | None:
        delivery = await self._source.fetch(version=self._standing.statement.version, etag=self._etag)
        self._metrics.polls.labels("newer" if delivery else "nothing").inc()
        self._metrics.contact.set_to_current_time()
        if self._is_cut_off:
            log.info("control plane answers again")
        self._is_cut_off = False
        return delivery

    async def _take(self, delivery: Delivery, *, takes_files: bool) -> None:
        pools = delivery.pools or self._pools
        if delivery.files is not None and takes_files:
            await self._apply(Bundle(delivery.gateway, delivery.version, delivery.files, pools))
        elif delivery.pools is not None:
            await self._data_plane.apply_pools(pools)
            self._metrics.pools.inc()
            log.info("endpoints live", extra={"etag": delivery.etag})
        self._pools, self._etag = pools, delivery.etag
        # Files that come while the instance ends count as had, so that they are not sent again and again.
        version = delivery.version if delivery.files is not None else self._standing.statement.version
        self._standing.had(version=version, etag=delivery.etag)

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
        details = {"version": bundle.version, "milliseconds": round(outcome.seconds * 1000, 1)}
        if outcome.serving:
            standing.serves(bundle.version, seconds=outcome.seconds)
            log.info("live", extra=details)
        else:
            standing.refuses(bundle.version, refusal_of(outcome.refusal), seconds=outcome.seconds)
            log.error("bundle refused", extra={**details, "problem": str(outcome.refusal)})
