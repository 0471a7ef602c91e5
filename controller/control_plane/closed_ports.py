"""Ports that instances of a Gateway could not open, and when they are tried again.

A port that is in use in one pod may be free in the next: the pods that come for a listener on a port of their own move
out of its way. While a pod is there that could not open a port, its Gateway does without; a version with that port
would keep the pod from everything else that is in it.
"""

from collections.abc import Collection, Set
from dataclasses import dataclass, field
from typing import Final

from controller.backoff import Backoff
from controller.ir.streams import Opening

_FIRST: Final = 60.0
_LONGEST: Final = 3600.0
"""Seconds after which a port is tried again in pods that stay: nginx tries for three seconds before it gives up."""


@dataclass
class _Closed:
    backoff: Backoff
    pods: frozenset[str]
    """Uids of those that could not open it."""
    due: float
    is_refused: bool = True


@dataclass
class ClosedPorts:
    """Of one Gateway. Times are those of one clock."""

    _known: dict[Opening, _Closed] = field(default_factory=dict)
    """Also those that are tried again, for the delay after the next refusal."""

    @property
    def due(self) -> float | None:
        """When the next port is to be tried again; None when none waits."""
        return min((item.due for item in self._known.values() if item.is_refused), default=None)

    def note(self, opening: Opening, *, pods: Collection[str], now: float) -> None:
        """These pods could not open a port."""
        before = self._known.get(opening)
        backoff = before.backoff if before else Backoff(first=_FIRST, longest=_LONGEST)
        self._known[opening] = _Closed(backoff, frozenset(pods), now + backoff.delay())

    def to_try(self, *, wanted: Set[Opening], present: Set[str], now: float) -> frozenset[Opening]:
        """Ports that count as closed no more.

        No listener wants them, no pod is `present`, by its uid, that could not open them, or it is time.
        """
        ended = {key for key, item in self._known.items() if key not in wanted or not item.pods & present}
        over = {key for key, item in self._known.items() if item.is_refused and (key in ended or now >= item.due)}
        for key in over:
            self._known[key].is_refused = False
        for key in ended:
            del self._known[key]
        return frozenset(over)
