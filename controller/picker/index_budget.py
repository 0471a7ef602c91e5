"""How many chunks each prefix index may hold, so that all of them together stay below a number of bytes.

A set that grows hash by hash has a table of a few sizes, each four times the one before and three fifths full at most:
4,950 hashes take four times the table of 4,900. A million chunks are 75 to 155 MB, by how many indexes share them. So
bytes are shared out, not chunks.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from controller.picker.prefix import PrefixIndex

LIMIT: Final = 115_000_000
"""Bytes of all indexes, which keeps a picker with all that it has besides below 200 MB."""
HASH: Final = 48
"""Bytes of a hash of 64 bits, as it is allocated."""
SLOT: Final = 16
"""Bytes of a place in a table."""
TABLES: Final[tuple[int, ...]] = tuple(1 << power for power in (3, 5, 7, 9, 11, 13, 15, 17, *range(18, 25)))
"""Places in the tables of a growing set; above 50,000 hashes they double. Source: CPython, Objects/setobject.c."""


def bytes_of(count: int) -> int:
    """Bytes of a set of so many hashes that has grown to that."""
    slots = next((slots for slots in TABLES if count <= _most(slots)), TABLES[-1])
    return slots * SLOT + count * HASH


def count_within(budget: float) -> int:
    """The most hashes whose set takes no more than so many bytes; at least 1."""
    found = 1
    for smaller, slots in pairwise((0, *TABLES)):
        count = min(_most(slots), int((budget - slots * SLOT) // HASH))
        if count <= _most(smaller):
            # Another table for next to nothing, or for less than fits the smaller one.
            continue
        found = max(found, count)
    return found


def share_out(indexes: Iterable[PrefixIndex], limit: int = LIMIT) -> None:
    """Give each index the capacity it wants, or what fits its part of the bytes where they want more together."""
    indexes = list(indexes)
    wants = [max(1, int(index.wanted * index.trust)) for index in indexes]
    # Two generations each.
    room = limit / 2
    capacities: Sequence[int] = wants
    if sum(map(bytes_of, wants)) > room:
        total = sum(wants)
        capacities = [min(wanted, count_within(room * wanted / total)) for wanted in wants]
    for index, capacity in zip(indexes, capacities, strict=True):
        if capacity != index.capacity:
            index.resize(capacity)


def _most(slots: int) -> int:
    """Hashes in a table before it grows."""
    return ((slots - 1) * 3 - 1) // 5 if slots else 0
