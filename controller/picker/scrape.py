"""Reads the model servers' metrics: each endpoint once per interval, spread over it."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from controller.picker.endpoints import Endpoint, Metrics
from controller.picker.inflight import InFlight
from controller.picker.model_servers import MetricsReader
from controller.picker.pages import Page, ScrapeFailed
from controller.picker.pools import PoolTable

log = logging.getLogger(__name__)

GOLDEN_RATIO: Final = 0.618033988749895
"""Multiples of it, modulo 1, fill the interval evenly however many endpoints there are."""


class Pages(Protocol):
    """Where one page of each endpoint comes from."""

    async def get(self, address: str) -> Page:
        """The page of an endpoint. Raises ScrapeFailed."""
        ...

    def forget(self, address: str) -> None:
        """Close what is open to an endpoint."""
        ...


class Scraper:
    """Keeps the readings of all endpoints up to date."""

    def __init__(
        self,
        *,
        table: PoolTable,
        in_flight: InFlight,
        pages: Pages,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._table = table
        self._in_flight = in_flight
        self._pages = pages
        self._clock = clock
        self._sleep = sleep
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._readers: defaultdict[Endpoint, MetricsReader] = defaultdict(MetricsReader)
        self._intervals: dict[Endpoint, float] = {}
        """At which the tasks scrape."""
        self._started = 0

    def follow(self) -> None:
        """Begin with endpoints that came, stop with those that left, and start anew at another interval."""
        endpoints = set(self._table.endpoints)
        for endpoint in tuple(self._tasks):
            if endpoint not in endpoints or self._intervals[endpoint] != endpoint.scrape_interval:
                self._tasks.pop(endpoint).cancel()
                del self._intervals[endpoint]
        for endpoint in sorted(endpoints - self._tasks.keys(), key=lambda endpoint: endpoint.key):
            interval = self._intervals[endpoint] = endpoint.scrape_interval
            delay = (self._started * GOLDEN_RATIO) % 1.0 * interval
            self._started += 1
            task = self._keep_scraping(endpoint, interval=interval, delay=delay)
            self._tasks[endpoint] = asyncio.create_task(task)

    async def stop(self) -> None:
        """End every scrape."""
        tasks = tuple(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def scrape(self, endpoint: Endpoint) -> None:
        """Ask one endpoint once, and take what it says."""
        started = self._clock()
        sent_before = len(endpoint.open)
        try:
            page = await self._pages.get(endpoint.address)
        except ScrapeFailed:
            endpoint.miss()
            self._in_flight.interrupt(endpoint)
            return
        # The server looked at some moment in between; the greater count leaves fewer requests to others.
        own = max(sent_before, len(endpoint.open))
        self._take(endpoint, page, own=own, started=started)

    def _take(self, endpoint: Endpoint, page: Page, *, own: int, started: float) -> None:
        if page.status != 200:
            self._in_flight.interrupt(endpoint)
            if page.status >= 500 and page.status != 501:
                endpoint.miss()
            else:
                # 404 of a server without metrics, 501 of llama.cpp without --metrics, 401 and 403 of a guarded one
                self._read_nothing(endpoint, Metrics.MISSING, f"status {page.status}")
            return
        try:
            reading = self._readers[endpoint].read(page.body, endpoint.engine)
        except ValueError as error:
            self._in_flight.interrupt(endpoint)
            self._read_nothing(endpoint, Metrics.UNKNOWN, f"malformed: {error}"[:200])
            return
        if reading is None:
            self._in_flight.interrupt(endpoint)
            self._read_nothing(endpoint, Metrics.UNKNOWN, "no metrics of a known model server")
            return
        endpoint.read(reading, own=own, now=self._clock())
        if not reading.is_whole:
            self._in_flight.interrupt(endpoint)
            return
        reported = reading.running + reading.waiting
        _tell_expired(endpoint, self._in_flight.compare(endpoint, reported=reported, scraped_at=started))

    def _read_nothing(self, endpoint: Endpoint, metrics: Metrics, reason: str) -> None:
        if endpoint.reported is not metrics:
            endpoint.reported = metrics
            log.warning(
                "endpoint has no metrics, chosen by requests in flight alone",
                extra={"endpoint": endpoint.address, "pod": endpoint.name, "reason": reason},
            )
        now = self._clock()
        endpoint.read_nothing(metrics, now=now)
        _tell_expired(endpoint, self._in_flight.outlive(endpoint, now=now))

    async def _keep_scraping(self, endpoint: Endpoint, *, interval: float, delay: float) -> None:
        try:
            await self._sleep(delay)
            while True:
                started = self._clock()
                await self.scrape(endpoint)
                await self._sleep(max(0.0, interval - (self._clock() - started)))
        finally:
            self._pages.forget(endpoint.address)
            self._readers.pop(endpoint, None)


def _tell_expired(endpoint: Endpoint, count: int) -> None:
    if count:
        log.warning("requests without an end expired", extra={"endpoint": endpoint.address, "count": count})
