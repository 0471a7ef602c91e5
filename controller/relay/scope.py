"""Which endpoints a picker is asked to choose among: all of the pool, or fewer as the protocol has gateways say it.

The endpoint of a session is asked for in the same way, so that any picker keeps sessions. Our own is told that this one
endpoint is a wish, and what it may choose besides. See `SESSION_KEY`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from controller.bundle import ENDPOINT_HEADER
from controller.extproc.messages import SESSION_KEY, SUBSET_KEY, endpoints_of
from controller.relay.changes import normal, value_of
from controller.relay.errors import RelayError
from controller.relay.http1 import Fields
from controller.relay.pools import RelayPool

_SUBSET: Final = SUBSET_KEY.encode()
_SESSION: Final = ENDPOINT_HEADER.encode()


@dataclass(frozen=True)
class Scope:
    """What a picker is asked to choose from."""

    allowed: tuple[str, ...] | None = None
    """`ip:port`, or addresses with any port; None: every endpoint of the pool."""
    session: str = ""
    """The endpoint that the session of the request is on, which is among them; empty without one."""

    @property
    def hint(self) -> dict[str, list[str]]:
        """What any picker is told; empty where it may choose freely."""
        if self.session:
            return {SUBSET_KEY: [self.session]}
        return {SUBSET_KEY: list(self.allowed)} if self.allowed is not None else {}

    @property
    def wish(self) -> Mapping[str, object]:
        """What our own picker is told besides."""
        if not self.session:
            return {}
        return {SESSION_KEY: self.session, **({SUBSET_KEY: list(self.allowed)} if self.allowed is not None else {})}

    def without_session(self) -> "Scope":
        """The same, for a picker that refuses the endpoint of the session."""
        return Scope(self.allowed)

    def beside(self, failed: Collection[str], *, pool: RelayPool) -> "Scope | None":
        """What is left when endpoints of the pool failed; None where nothing is."""
        left = [one for one in sorted(pool.endpoints) if one not in failed and _allows(self.allowed, one)]
        return Scope(tuple(left)) if left else None


class SessionMoves(RelayError):
    """The endpoint of a session does not serve it: the picker is asked once more, in another scope."""

    def __init__(self, message: str, scope: Scope) -> None:
        super().__init__(message)
        self.scope = scope


def scope_of(fields: Fields, pool: RelayPool) -> Scope:
    """What NGINX says of it, in headers that a client cannot write."""
    # An empty one is removed on the way.
    subset = value_of(fields, _SUBSET)
    allowed = endpoints_of(subset.decode("latin-1")) if subset else None
    session = value_of(fields, _SESSION)
    endpoint = pool.by_session.get(session.decode("latin-1"), "") if session else ""
    return Scope(allowed, endpoint if _allows(allowed, endpoint) else "")


def _allows(allowed: tuple[str, ...] | None, address: str) -> bool:
    """An entry without a port allows all ports of an address. Source: endpoint picker protocol, subset."""
    if allowed is None:
        return True
    host = address.rpartition(":")[0].strip("[]")
    return host in allowed or normal(address) in {normal(item) for item in allowed}
