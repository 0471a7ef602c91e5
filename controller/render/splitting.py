"""Requests divided by chance: among the backends of a rule, and for the samples of mirrors."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.ir.filters import Mirror
from controller.ir.types import Rule
from controller.render.maps import digest, header_variable
from controller.render.quoting import expression, inside
from controller.render.weights import Split, splits


@dataclass(frozen=True, order=True)
class StickyView:
    """What tells users apart: a header, or the request where it has none."""

    variable: str
    header: str
    """Its variable."""


@dataclass(frozen=True)
class SplitView:
    """Divides requests by chance."""

    rule: Rule
    what: str
    """For a reader."""
    variable: str
    """Holds one of the values."""
    salt: str
    """What makes one split independent of another."""
    values: tuple[str, ...]
    """By the index of the share, as written into the file."""
    split: Split
    fine_split: Split | None
    sticky: "StickyView | None" = None
    """Whose value it goes by; None: every request by itself."""

    @property
    def source(self) -> str:
        return expression(self._drawn, self.salt) if self.salt else "$request_id"

    @property
    def fine_source(self) -> str:
        return expression(f"{self._drawn}fine", self.salt)

    @property
    def _drawn(self) -> str:
        return f"${{{self.sticky.variable[1:]}}}" if self.sticky else "${request_id}"


def split_view(rule: Rule, locations: Sequence[str]) -> SplitView:
    split, fine = splits([backend.weight for backend in rule.backends if backend.weight > 0])
    return SplitView(
        rule=rule,
        what=f"weights {' / '.join(str(backend.weight) for backend in rule.backends)}",
        variable=f"$backend_{digest(rule.id)}",
        # Who is early in one rollout need not be early in all.
        salt=inside(rule.id) if rule.sticky_header else "",
        values=tuple(locations),
        split=split,
        fine_split=fine,
        sticky=_sticky_view(rule.sticky_header) if rule.sticky_header else None,
    )


def sample_view(rule: Rule, mirror: Mirror, *, location: str) -> SplitView | None:
    rest = mirror.denominator - mirror.numerator
    if not rest:
        return None
    split, fine = splits([mirror.numerator, rest])
    return SplitView(
        rule=rule,
        what=f"mirrors {mirror.numerator} of {mirror.denominator} to {mirror.upstream or mirror.pool}",
        variable=f"$mirror_{digest(location)}",
        salt=location,
        values=("1", "0"),
        split=split,
        fine_split=fine,
    )


def _sticky_view(header: str) -> StickyView:
    variable = header_variable(header)
    return StickyView(f"$sticky_{variable[1:].removeprefix('http_')}", variable)
