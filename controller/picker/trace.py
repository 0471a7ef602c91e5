"""What led to a choice, noted while it is made for a request that asks why. Others have no trace and pay nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.picker.endpoints import Endpoint


@dataclass(frozen=True)
class Filtered:
    """What a filter left."""

    name: str
    before: Sequence[Endpoint]
    after: Sequence[Endpoint]


@dataclass(frozen=True)
class Scored:
    """What a scorer said of the endpoints that the filters left, in their order."""

    name: str
    weight: float
    scores: Sequence[float]
    """As the scorer gave them, before the weight."""
    terms: Sequence[Mapping[str, float]]
    """What each score is made of; empty for a scorer that does not tell."""


@dataclass
class Trace:
    """One pick."""

    filters: list[Filtered] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    scored: Sequence[Endpoint] = ()
    """The endpoints that the picker chose from; none where it was not asked."""
    totals: Sequence[float] = ()
    """Of these, the weighted sums."""
    matched: Sequence[int] = ()
    """Of these, how many chunks of the prompt each has."""
    picker: str = ""
    """Name of the picker that was asked; empty where there was nothing to choose."""
    is_fallback: bool = False
    """Whether the choice was made earlier, as a fallback of the same request."""
    is_of_session: bool = False
    """Whether the choice was made by the session of the request."""

    def begin(self) -> None:
        """A run of the profile begins; what an earlier one came to does not count."""
        self.filters.clear()
        self.scores.clear()
        self.scored = self.totals = self.matched = ()
        self.picker = ""
