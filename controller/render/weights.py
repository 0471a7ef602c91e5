"""Shares of traffic in nginx's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_STEPS = 10_000
"""`split_clients` takes percentages with two decimals."""


@dataclass(frozen=True)
class Split:
    """The parts of one `split_clients`: percentages with two decimals, in order; `rest` takes what remains."""

    parts: tuple[tuple[str, int], ...]
    """(percentage, index of the share)."""
    rest: int | None
    """Index of the share that takes the remainder; None: a finer split decides there."""


def splits(weights: Sequence[int]) -> tuple[Split, Split | None]:
    """Shares by weight: a split, and a finer one for what its steps of 0.01 % cannot express.

    The finer split divides the remainder, which is below 0.01 % for each share, again in steps of 0.01 %, so a share
    is exact to one in a hundred million. At least one weight is positive.
    """
    total = sum(weights)
    shares = {index: Fraction(weight, total) * _STEPS for index, weight in enumerate(weights) if weight}
    whole = {index: int(share) for index, share in shares.items()}
    if sum(whole.values()) == _STEPS:
        *others, last = shares
        return _split({index: whole[index] for index in others}, rest=last), None
    parts = {index: share - whole[index] for index, share in shares.items()}
    remainder = sum(parts.values())
    *others, last = (index for index, part in parts.items() if part)
    if not others:
        return _split(whole, rest=last), None
    fine = {index: round(parts[index] / remainder * _STEPS) for index in others}
    return _split(whole, rest=None), _split(fine, rest=last)


def _split(steps: dict[int, int], *, rest: int | None) -> Split:
    return Split(
        parts=tuple((f"{count // 100}.{count % 100:02}%", index) for index, count in steps.items() if count), rest=rest
    )
