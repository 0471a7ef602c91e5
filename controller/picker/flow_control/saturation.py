"""Saturation detectors: how many more requests a pool can take.

Capacity is a sum over endpoints, each judged by itself: a full endpoint adds nothing and takes nothing from the others,
so it neither hides behind a mean nor closes the pool. Endpoints that fail add nothing while others do not fail.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from controller.picker.flow_control.loads import EndpointLoad
from controller.picker.flow_control.settings import (
    ConcurrencyMode,
    ConcurrencyParameters,
    DetectorRef,
    UtilizationDetectorRef,
    UtilizationParameters,
)

ASSUMED_SLOTS: Final = 256
"""Requests that an endpoint runs at once while that is not known: `max_num_seqs` of vLLM."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a pool can take at one moment."""

    requests: float = 0.0
    """More requests, whole or infinite."""
    tokens: float = 0.0
    """More tokens; the request that uses the last of them may go beyond."""
    max_requests: float = 0.0
    """Requests that it takes when idle."""
    max_tokens: float = 0.0
    saturation: float = 1.0
    """0 idle, 1 full; a pool without endpoints is full."""
    unknown: int = 0
    """Endpoints judged by own counts for lack of a fresh reading."""


class Detector(Protocol):
    """Judges the endpoints of a pool."""

    name: str

    def room(self, loads: Sequence[EndpointLoad]) -> Room:
        """What the pool can take."""
        ...

    def has_room(self, load: EndpointLoad) -> bool:
        """Whether one endpoint can take one more, the headroom included; for use as a filter of a pick."""
        ...


def detector_of(ref: DetectorRef) -> Detector:
    """The detector that is configured."""
    if isinstance(ref, UtilizationDetectorRef):
        return UtilizationDetector(ref.parameters)
    return ConcurrencyDetector(ref.parameters)


class UtilizationDetector:
    """Full is an endpoint whose queue or KV cache is at its threshold.

    The queue is that of the reading, moved by what was sent and what ended since: a burst between two scrapes is seen.
    An endpoint whose reading is too old, or that has none, is judged by the requests in flight to it.
    """

    name = "utilization-detector"

    def __init__(self, parameters: UtilizationParameters) -> None:
        self._depth = parameters.queue_depth_threshold
        self._kv_use = parameters.kv_cache_util_threshold
        self._staleness = parameters.metrics_staleness_threshold
        self._raised = 1.0 + parameters.headroom

    def room(self, loads: Sequence[EndpointLoad]) -> Room:
        """See `Detector`."""
        usable = _usable(loads)
        if not usable:
            return Room()
        requests = capacity = unknown = 0
        saturation = 0.0
        for load in usable:
            slots = _slots(load)
            if load.reading_age > self._staleness:
                limit = slots + self._depth
                unknown += 1
                capacity += limit
                requests += max(0, limit - load.in_flight)
                saturation += min(1.0, load.in_flight / limit)
                continue
            queue = _queue(load, slots=slots)
            kv_use = load.kv_use or 0.0
            capacity += max(slots, load.running) + self._depth
            saturation += min(1.0, max(queue / self._depth, kv_use / self._kv_use, 0.0))
            free = max(0, self._depth - queue) if kv_use < self._kv_use else 0
            # Blocks of prompts kept for later count as used in some servers: one without work takes a request.
            requests += max(free, 1) if _is_idle(load) else free
        return Room(requests, math.inf, capacity, math.inf, saturation / len(usable), unknown)

    def has_room(self, load: EndpointLoad) -> bool:
        """See `Detector`."""
        slots = _slots(load)
        depth = self._depth * self._raised
        if load.reading_age > self._staleness:
            return load.in_flight < slots + depth
        return _is_idle(load) or (
            _queue(load, slots=slots) < depth and (load.kv_use or 0.0) < self._kv_use * self._raised
        )


class ConcurrencyDetector:
    """Full is an endpoint with a number of requests, or of tokens, in flight.

    Needs no readings. Where there are any, the requests of others count too, so that replicas of the gateway share a
    limit instead of having it each; nobody tells of their tokens.
    """

    name = "concurrency-detector"

    def __init__(self, parameters: ConcurrencyParameters) -> None:
        mode = parameters.concurrency_mode
        self._requests = math.inf if mode is ConcurrencyMode.TOKENS else parameters.max_concurrency
        self._tokens = math.inf if mode is ConcurrencyMode.REQUESTS else parameters.max_token_concurrency
        self._raised = 1.0 + parameters.headroom

    def room(self, loads: Sequence[EndpointLoad]) -> Room:
        """See `Detector`."""
        usable = _usable(loads)
        if not usable:
            return Room()
        requests = tokens = saturation = 0.0
        for load in usable:
            count = load.in_flight + load.others
            free_requests = self._requests - count
            free_tokens = self._tokens - load.tokens
            if free_requests > 0 and free_tokens > 0:
                requests += free_requests
                tokens += free_tokens
            saturation += min(1.0, max(count / self._requests, load.tokens / self._tokens))
        pods = len(usable)
        return Room(requests, tokens, self._requests * pods, self._tokens * pods, saturation / pods)

    def has_room(self, load: EndpointLoad) -> bool:
        """See `Detector`."""
        count = load.in_flight + load.others
        return count < self._requests * self._raised and load.tokens < self._tokens * self._raised


def _usable(loads: Sequence[EndpointLoad]) -> Sequence[EndpointLoad]:
    return [load for load in loads if not load.is_avoided] or loads


def _slots(load: EndpointLoad) -> int:
    return ASSUMED_SLOTS if load.slots == math.inf else int(load.slots)


def _queue(load: EndpointLoad, *, slots: int) -> int:
    """Requests that wait there, by the reading and what happened since; below 0 while slots are free.

    One that queues has no free slot, whatever its number is: then it is the memory that is short.
    """
    free_slots = 0 if load.waiting else max(0, slots - load.running)
    return load.waiting + load.in_flight - load.own_at_reading - free_slots


def _is_idle(load: EndpointLoad) -> bool:
    return load.in_flight == 0 and load.running == 0 and load.waiting == 0
