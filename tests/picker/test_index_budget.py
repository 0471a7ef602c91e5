"""The bytes of all indexes are shared out among them."""

import random
import sys

import pytest

from controller.picker.index_budget import HASH, LIMIT, bytes_of, count_within, share_out
from controller.picker.prefix import PrefixIndex


def _grown(count: int) -> set[int]:
    """As an index grows: some hashes at a time."""
    drawn = random.Random(count)
    found: set[int] = set()
    while len(found) < count:
        found.update([drawn.getrandbits(64) for _ in range(min(16, count - len(found)))])
    return found


def _indexes(*wants: int) -> list[PrefixIndex]:
    indexes = [PrefixIndex() for _ in wants]
    for index, wanted in zip(indexes, wants, strict=True):
        index.wanted = wanted
    return indexes


@pytest.mark.parametrize("count", [1, 5, 300, 1228, 1229, 4914, 4915, 7812, 19_660, 19_661, 78_642, 78_643, 157_287])
def test_bytes_of_a_set_are_those_of_the_interpreter(count: int) -> None:
    measured = sys.getsizeof(_grown(count)) + count * HASH
    assert measured - 1000 <= bytes_of(count) <= measured


@pytest.mark.parametrize("budget", [0, 100, 5000, 130_000, 367_000, 575_000, 898_000, 5_000_000, 60_000_000])
def test_what_fits_a_budget_takes_no_more_and_a_larger_one_would(budget: int) -> None:
    count = count_within(budget)
    assert count >= 1
    assert count == 1 or bytes_of(count) <= budget
    assert bytes_of(count + 1) > budget


def test_limit_for_all_is_shared_by_what_each_wants() -> None:
    indexes = _indexes(1000, 1000, 2000)
    share_out(indexes)
    assert [index.capacity for index in indexes] == [1000, 1000, 2000]
    share_out(indexes, 2 * sum(map(bytes_of, (500, 500, 1000))))
    assert indexes[0].capacity == indexes[1].capacity
    assert 300 <= indexes[0].capacity < 1000
    assert 600 <= indexes[2].capacity < 2000


@pytest.mark.parametrize("pods", [1, 20, 25, 26, 50, 64, 100, 101, 128, 500, 5000])
@pytest.mark.parametrize("wanted", [64, 16_384, 25_000, 100_000])
def test_all_indexes_stay_below_the_limit_however_many(pods: int, wanted: int) -> None:
    indexes = _indexes(*[wanted] * pods)
    share_out(indexes)
    assert 2 * sum(bytes_of(index.capacity) for index in indexes) <= LIMIT
    # Just before a larger table fits, a chunk takes the room of 3.3 hashes, and 1.5 just after.
    least = min(wanted, LIMIT / pods / 2 / HASH / 3.3)
    assert all(index.capacity >= least for index in indexes)
