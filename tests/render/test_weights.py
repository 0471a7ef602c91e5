from fractions import Fraction

import pytest

from controller.render.weights import Split, splits


def _share(split: Split, index: int) -> Fraction:
    parts = {name: Fraction(percent.rstrip("%")) / 100 for percent, name in split.parts}
    if split.rest is not None:
        parts[split.rest] = 1 - sum(parts.values(), Fraction(0))
    return parts.get(index, Fraction(0))


@pytest.mark.parametrize(
    "weights",
    [(90, 10), (1, 1), (1, 2), (1, 1, 1), (1, 19_999), (1, 999_999), (0, 5, 0, 3), (7, 11, 13, 17), (1_000_000, 1)],
)
def test_shares_are_exact_to_one_in_a_hundred_million(weights: tuple[int, ...]) -> None:
    coarse, fine = splits(weights)
    undecided = 1 - sum(_share(coarse, index) for index in range(len(weights)))
    for index, weight in enumerate(weights):
        share = _share(coarse, index) + (undecided * _share(fine, index) if fine else 0)
        assert abs(share - Fraction(weight, sum(weights))) < Fraction(1, 10**8)


def test_share_without_weight_gets_nothing() -> None:
    coarse, fine = splits((0, 5, 5))
    assert coarse == Split(parts=(("50.00%", 1),), rest=2)
    assert fine is None


def test_plain_percentages_need_one_split() -> None:
    assert splits((90, 10)) == (Split(parts=(("90.00%", 0),), rest=1), None)
