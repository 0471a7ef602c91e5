"""Which endpoints a picker is asked to choose among: all of the pool, or fewer as the protocol has gateways say it.

It is asked again where what it chose fails, for those that were not tried.

The endpoint of a session is asked for in the same way, so that any picker keeps sessions. Our own is told that this one
endpoint is a wish, and what it may choose besides, and what was tried. See `SESSION_KEY` and `TRIED_KEY`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from controller.extproc.messages import SESSION_KEY, SUBSET_KEY, TRIED_KEY, endpoints_of
from controller.headers import ENDPOINT_HEADER, TryOutcome
from controller.relay.changes import normal, value_of
from controller.relay.errors import RelayError
from controller.relay.http1 import Fields
from controller.relay.pools import RelayPool

_SUBSET: Final = SUBSET_KEY.encode()
_SESSION: Final = ENDPOINT_HEADER.encode()
MOST_AGAIN: Final = 2
"""Of a request whose endpoints fail: as often as the built-in picker chooses another one."""


class Tried(NamedTuple):
    """An endpoint that failed a request."""

    address: str
    outcome: TryOutcome


def told_of(tried: Iterable[Tried]) -> str:
    """As in `TRIED_HEADER`."""
    return "".join([f"{one.address}={one.outcome};" for one in tried])


@dataclass(frozen=True)
class Scope:
    """What a picker is asked to choose from."""

    allowed: tuple[str, ...] | None = None
    """`ip:port`, or addresses with any port; None: every endpoint of the pool."""
    session: str = ""
    """The endpoint that the session of the request is on, which is among them; empty without one."""
    tried: tuple[Tried, ...] = ()
    left: tuple[str, ...] = ()
    """Of the allowed ones, those that were not tried, where some were."""
    again: int = 0
    """How often the picker was asked again because of them."""

    @property
    def is_last(self) -> bool:
        """Whether nothing was left to choose from."""
        return bool(self.tried) and not self.left

    @property
    def hint(self) -> dict[str, list[str]]:
        """What any picker is told; empty where it may choose freely."""
        if self.session:
            return {SUBSET_KEY: [self.session]}
        if self.tried:
            return {SUBSET_KEY: list(self.left)}
        return {SUBSET_KEY: list(self.allowed)} if self.allowed is not None else {}

    @property
    def wish(self) -> Mapping[str, object]:
        """What our own picker is told besides."""
        if self.tried:
            return {TRIED_KEY: told_of(self.tried)}
        if not self.session:
            return {}
        return {SESSION_KEY: self.session, **({SUBSET_KEY: list(self.allowed)} if self.allowed is not None else {})}

    def without_session(self) -> "Scope":
        """The same, for a picker that refuses the endpoint of the session."""
        return Scope(self.allowed)

    def beside(self, tried: Sequence[Tried], *, pool: RelayPool) -> "Scope":
        """What is left when these endpoints failed: nothing as well where the picker was asked often enough."""
        left: list[str] = []
        if self.again < MOST_AGAIN:
            failed = {one.address for one in tried}
            left = [one for one in sorted(pool.endpoints) if one not in failed and _allows(self.allowed, one)]
        return Scope(self.allowed, tried=tuple(tried), left=tuple(left), again=self.again + 1)

    def untried(self, addresses: Iterable[str]) -> list[str]:
        """Of what a picker chooses, what may be asked: it need not have heard the hint."""
        if self.is_last:
            return []
        failed = {one.address for one in self.tried}
        return [one for one in addresses if one not in failed]


class AskAgain(RelayError):
    """What was asked for does not serve: the picker is asked once more, in another scope."""

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
