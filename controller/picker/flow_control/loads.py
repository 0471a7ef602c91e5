"""How busy an endpoint is, as a saturation detector sees it."""

import math
from typing import Protocol

import msgspec

from controller.picker.endpoints import Endpoint


class EndpointLoad(Protocol):
    """What a detector asks of an endpoint."""

    @property
    def in_flight(self) -> int:
        """Requests that this picker sent and that have not ended."""
        ...

    @property
    def others(self) -> int:
        """Requests of others than this picker, in a reading that is fresh: of other replicas of the gateway."""
        ...

    @property
    def tokens(self) -> int:
        """Estimated tokens of those requests."""
        ...

    @property
    def reading_age(self) -> float:
        """Seconds; infinite without a reading."""
        ...

    @property
    def running(self) -> int:
        """In the reading."""
        ...

    @property
    def waiting(self) -> int:
        """In the reading."""
        ...

    @property
    def own_at_reading(self) -> int:
        """Requests in flight when the reading was taken."""
        ...

    @property
    def kv_use(self) -> float | None:
        """Share in the reading; None when it does not say."""
        ...

    @property
    def slots(self) -> float:
        """Requests that it runs at once; infinite while that is not known."""
        ...

    @property
    def is_avoided(self) -> bool:
        """Whether it fails, so that requests go there only when no other is left."""
        ...


class Load(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An `EndpointLoad` at one moment."""

    in_flight: int = 0
    others: int = 0
    tokens: int = 0
    reading_age: float = math.inf
    running: int = 0
    waiting: int = 0
    own_at_reading: int = 0
    kv_use: float | None = None
    slots: float = math.inf
    is_avoided: bool = False


def load_of(endpoint: Endpoint, *, now: float, staleness: float) -> Load:
    """The load of an endpoint of the picker. staleness: seconds after which a reading tells nothing of others."""
    reading = endpoint.reading
    is_avoided = not endpoint.health.may_serve(now)
    if reading is None:
        return Load(in_flight=len(endpoint.open), tokens=endpoint.tokens, slots=endpoint.slots, is_avoided=is_avoided)
    return Load(
        in_flight=len(endpoint.open),
        others=endpoint.foreign if now - endpoint.answered_at <= staleness else 0,
        tokens=endpoint.tokens,
        reading_age=now - endpoint.answered_at,
        running=reading.running,
        waiting=reading.waiting,
        own_at_reading=endpoint.own_at_reading,
        kv_use=reading.kv_use,
        slots=endpoint.slots,
        is_avoided=is_avoided,
    )
