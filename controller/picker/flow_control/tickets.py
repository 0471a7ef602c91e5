"""What asks for admission, what waits, and what is admitted."""

from dataclasses import dataclass, field
from enum import Enum

import msgspec


class Ticket(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One request for admission. It holds sizes and names, never the body, which waits in NGINX.

    A msgspec struct: made for every request.
    """

    id: str
    """As NGINX names the request."""
    pool: str
    """`namespace/name`."""
    priority: int = 0
    size: int = 0
    """Bytes of the body."""
    tokens: int = 0
    """Estimate of the tokens it will count for while in flight."""
    claimant: bytes = b""
    """What tells the tenant from others. May be a credential: hashed before it is kept, and not shown."""
    due: float | None = None
    """Seconds from arrival in which the first token is wanted; None: no wish."""
    ttl: float | None = None
    """Seconds it may wait, below the pool's; None: the pool's."""

    def __repr__(self) -> str:
        return f"Ticket(id={self.id!r}, pool={self.pool!r}, priority={self.priority}, size={self.size})"


@dataclass(frozen=True)
class Admitted:
    """The request may go to a model server, and is to be picked for before anything else waits."""

    waited: float
    """Seconds in the queue."""


AT_ONCE = Admitted(0.0)
"""Admitted without a wait."""


class Stage(Enum):
    """Where a request that had to wait is."""

    WAITING = "waiting"
    GRANTED = "granted"
    """Released, but not picked for yet: it counts against the capacity until then."""
    ENDED = "ended"


@dataclass(slots=True, eq=False, kw_only=True)
class Waiting:
    """A request in the queue, about 400 bytes."""

    id: str
    tenant: str
    priority: int
    size: int
    tokens: int
    entered: float
    due: float
    """When its first token is wanted; infinite without a wish."""
    ttl: float
    """Seconds it may wait, whatever the pool allows; infinite without a limit of its own."""
    stage: Stage = Stage.WAITING
    expires: float = field(default=0.0, init=False)
    """When it has waited long enough."""
    key: float = field(default=0.0, init=False)
    """Order in its queue, least first."""
    number: int = field(default=0, init=False)
    """Order of arrival in its pool."""
    band: int = field(default=0, init=False)
    """Priority of the band it waits in: its own, unless there are too many bands."""

    def is_gone(self) -> bool:
        """Whether nobody waits for it any more, although it was not withdrawn yet."""
        return False
