"""The queue of one pool: bands by priority, with their bounds.

Who waits where, who goes first, who has to make room and who has waited too long. When something is released is the
gate's concern; there is no clock here and no capacity.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from controller.picker.flow_control.fairness import Queues, queues_of
from controller.picker.flow_control.orders import LazyHeap
from controller.picker.flow_control.refusals import Drop
from controller.picker.flow_control.settings import (
    LONGEST_WAIT,
    MOST_BANDS,
    BandSettings,
    FlowControlSettings,
    Ordering,
)
from controller.picker.flow_control.tickets import Stage, Waiting

Dropped = tuple[Waiting, Drop]


class QueueFull(Exception):
    """There is no place for a request, and nobody has to make room for it."""


@dataclass(slots=True)
class Band:
    """The waiting requests of one priority."""

    priority: int
    settings: BandSettings
    queues: Queues
    is_configured: bool
    """Otherwise it goes when it is empty."""
    count: int = 0
    size: int = 0
    """Bytes."""

    def fits(self, waiting: Waiting, *, without: Waiting | None) -> bool:
        """Whether there is a place, if another one left."""
        gone, bytes_gone = (1, without.size) if without else (0, 0)
        return (
            self.count - gone < self.settings.max_requests
            and self.size - bytes_gone + waiting.size <= self.settings.max_bytes
        )


class PoolQueue:
    """Every operation takes O(log n) of the waiting requests, and no more than a look at each band."""

    def __init__(self, settings: FlowControlSettings) -> None:
        self.count = 0
        self.size = 0
        """Bytes."""
        self._arrivals = 0
        self._configure(settings)

    @property
    def bands(self) -> tuple[Band, ...]:
        """Highest first."""
        return tuple(self._bands[-rank] for rank in self._ranks)

    def configure(self, settings: FlowControlSettings) -> None:
        """Use other settings. Who waits stays, in the same order, even where the bounds are smaller."""
        all_waiting = sorted(self._waiting(), key=lambda waiting: waiting.number)
        self.count = self.size = 0
        self._configure(settings)
        for waiting in all_waiting:
            self._add(waiting, self._band_for(waiting.priority))

    def enter(self, waiting: Waiting, *, expires: float) -> tuple[Dropped, ...]:
        """Take a request in. Returns those that had to make room for it, which are not in the queue any more.

        Raises QueueFull, and then nothing has changed.
        """
        band = self._band_for(waiting.priority)
        for in_its_place in (None, band.queues.heavier_than(waiting.tenant) if band.count else None):
            if band.fits(waiting, without=in_its_place) and self._total_fits(waiting, band, without=in_its_place):
                dropped = self._make_room(waiting, band, in_its_place)
                waiting.expires = expires
                self._arrivals += 1
                waiting.number = self._arrivals
                self._add(waiting, band)
                return dropped
        self._forget_if_unused(band)
        raise QueueFull

    def withdraw(self, waiting: Waiting) -> None:
        """Let one go that does not want to wait any more."""
        self._remove(waiting, Stage.ENDED)

    def release(self, may_run: Callable[[Band], bool]) -> Iterable[Waiting]:
        """Requests that may run, highest band first, each out of the queue when it is given.

        A band that may not run does not stop those below it.
        """
        for band in self.bands:
            while band.count:
                waiting = band.queues.first()
                if waiting.is_gone():
                    self._remove(waiting, Stage.ENDED)
                elif may_run(band):
                    self._remove(waiting, Stage.GRANTED, served=True)
                else:
                    break
                yield waiting

    def expire(self, now: float) -> Iterable[Waiting]:
        """Requests that have waited long enough, each out of the queue when it is given."""
        while (first := self._expiries.first()) is not None and first[0] <= now:
            self._remove(first[1], Stage.ENDED)
            yield first[1]

    def drain(self) -> Iterable[Waiting]:
        """Every request, each out of the queue when it is given."""
        for waiting in self._waiting():
            self._remove(waiting, Stage.ENDED)
            yield waiting

    def restart(self, expires: Callable[[Waiting], float]) -> None:
        """Give every request another end of its wait."""
        for waiting in (all_waiting := self._waiting()):
            waiting.expires = min(expires(waiting), waiting.entered + LONGEST_WAIT)
        self._expiries.replace((waiting.expires, waiting) for waiting in all_waiting)

    def next_expiry(self) -> float | None:
        """When the next request has waited long enough; None when nothing waits."""
        first = self._expiries.first()
        return first[0] if first else None

    def ahead_of(self, priority: int) -> int:
        """Requests that go before a new one of a priority."""
        return sum(band.count for rank, band in self._bands.items() if rank >= priority)

    def may_bypass(self, priority: int, may_run: Callable[[Band], bool]) -> bool:
        """Whether nothing that may run waits before a new one of a priority."""
        return not any(band.count and rank >= priority and may_run(band) for rank, band in self._bands.items())

    def _configure(self, settings: FlowControlSettings) -> None:
        self._settings = settings
        self._expiries = LazyHeap()
        self._bands: dict[int, Band] = {}
        self._ranks: list[int] = []
        """Priorities with their sign changed, so that the highest is first."""
        for band in settings.priority_bands:
            self._open(band.priority, is_configured=True)

    def _open(self, priority: int, *, is_configured: bool) -> Band:
        settings = self._settings.band(priority)
        band = Band(priority, settings, queues_of(settings), is_configured)
        self._bands[priority] = band
        insort(self._ranks, -priority)
        return band

    def _band_for(self, priority: int) -> Band:
        """The band of a priority; with too many, the next lower one, so that nobody is promoted if it can be helped."""
        band = self._bands.get(priority)
        if band is not None:
            return band
        if len(self._bands) < len(self._settings.priority_bands) + MOST_BANDS:
            return self._open(priority, is_configured=False)
        lower = next((-rank for rank in self._ranks if -rank < priority), -self._ranks[-1])
        return self._bands[lower]

    def _total_fits(self, waiting: Waiting, band: Band, *, without: Waiting | None) -> bool:
        """Whether there is a place in all bands together, if another one left and lower bands made room."""
        gone, bytes_gone = (1, without.size) if without else (0, 0)
        for lower in self._bands.values():
            if lower.priority < band.priority:
                gone += lower.count
                bytes_gone += lower.size
        return not self._is_above(self.count - gone + 1, self.size - bytes_gone + waiting.size)

    def _make_room(self, waiting: Waiting, band: Band, in_its_place: Waiting | None) -> tuple[Dropped, ...]:
        dropped: list[Dropped] = []
        if in_its_place is not None:
            self._remove(in_its_place, Stage.ENDED)
            dropped.append((in_its_place, Drop.CROWDED_OUT))
        while self._is_above(self.count + 1, self.size + waiting.size):
            lowest = next(-rank for rank in reversed(self._ranks) if self._bands[-rank].count)
            victim = self._bands[lowest].queues.least_urgent()
            self._remove(victim, Stage.ENDED)
            dropped.append((victim, Drop.DISPLACED))
        return tuple(dropped)

    def _is_above(self, count: int, size: int) -> bool:
        settings = self._settings
        return 0 < settings.max_requests < count or 0 < settings.max_bytes < size

    def _add(self, waiting: Waiting, band: Band) -> None:
        waiting.band = band.priority
        waiting.key = self._key(waiting, band.settings.ordering_policy_ref)
        band.queues.add(waiting)
        band.count += 1
        band.size += waiting.size
        self.count += 1
        self.size += waiting.size
        self._expiries.push(waiting.expires, waiting)

    def _remove(self, waiting: Waiting, stage: Stage, *, served: bool = False) -> None:
        waiting.stage = stage
        band = self._bands[waiting.band]
        band.queues.remove(waiting, served=served)
        band.count -= 1
        band.size -= waiting.size
        self.count -= 1
        self.size -= waiting.size
        self._expiries.discard()
        self._forget_if_unused(band)

    def _forget_if_unused(self, band: Band) -> None:
        if not band.count and not band.is_configured:
            del self._bands[band.priority]
            self._ranks.remove(-band.priority)

    def _key(self, waiting: Waiting, ordering: Ordering) -> float:
        if ordering is Ordering.EDF:
            return waiting.entered + min(waiting.ttl, self._settings.ttl)
        return waiting.due if ordering is Ordering.SLO_DEADLINE else 0.0

    def _waiting(self) -> list[Waiting]:
        return self._expiries.waiting()


def counts_of(queue: PoolQueue) -> Mapping[int, tuple[int, int]]:
    """Requests and bytes that wait, by the priority of the band."""
    return {band.priority: (band.count, band.size) for band in queue.bands}
