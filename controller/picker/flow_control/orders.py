"""Waiting requests in an order, with the removal of any of them at low cost.

An order of arrival is a linked hash map: every operation takes O(1). An order of deadlines is a heap in which what was
removed stays until it comes up or becomes the greater part: O(log n), amortised.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

from controller.picker.flow_control.tickets import Stage, Waiting

_SLACK: Final = 16
"""Removed items below which a heap is not worth sorting out."""


class Order(Protocol):
    """Waiting requests of one queue. Removed ones are no longer in the stage WAITING."""

    def add(self, waiting: Waiting) -> None:
        """Take one in."""
        ...

    def remove(self, waiting: Waiting) -> None:
        """Let one go, wherever it stands."""
        ...

    def first(self) -> Waiting:
        """Whose turn it is; there is at least one."""
        ...

    def last(self) -> Waiting:
        """Who came last; there is at least one."""
        ...

    def __len__(self) -> int: ...


class ByArrival:
    """First come, first served."""

    def __init__(self) -> None:
        self._arrivals: OrderedDict[Waiting, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def add(self, waiting: Waiting) -> None:
        """See `Order`."""
        self._arrivals[waiting] = None

    def remove(self, waiting: Waiting) -> None:
        """See `Order`."""
        del self._arrivals[waiting]

    def first(self) -> Waiting:
        """See `Order`."""
        return next(iter(self._arrivals))

    def last(self) -> Waiting:
        """See `Order`."""
        return next(reversed(self._arrivals))


class ByKey(ByArrival):
    """Least key first, then first come."""

    def __init__(self) -> None:
        super().__init__()
        self._heap = LazyHeap()

    def add(self, waiting: Waiting) -> None:
        """See `Order`."""
        super().add(waiting)
        self._heap.push(waiting.key, waiting)

    def remove(self, waiting: Waiting) -> None:
        """See `Order`."""
        super().remove(waiting)
        self._heap.discard()

    def first(self) -> Waiting:
        """See `Order`."""
        found = self._heap.first()
        assert found is not None  # the arrivals are not empty
        return found[1]


class LazyHeap:
    """Waiting requests by a number, least first. One that leaves the stage WAITING is as good as removed."""

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Waiting]] = []
        self._removed = 0

    def __len__(self) -> int:
        return len(self._items)

    def push(self, at: float, waiting: Waiting) -> None:
        """Take one in; among equals the first to come is first."""
        heapq.heappush(self._items, (at, waiting.number, waiting))

    def discard(self) -> None:
        """One of those in here is not waiting any more."""
        self._removed += 1
        if self._removed > _SLACK and self._removed * 2 > len(self._items):
            self._items = [item for item in self._items if item[2].stage is Stage.WAITING]
            heapq.heapify(self._items)
            self._removed = 0

    def first(self) -> tuple[float, Waiting] | None:
        """The least number with its request; None when nothing waits."""
        items = self._items
        while items and items[0][2].stage is not Stage.WAITING:
            heapq.heappop(items)
            self._removed -= 1
        return (items[0][0], items[0][2]) if items else None

    def waiting(self) -> list[Waiting]:
        """All of them, in no order."""
        return [item[2] for item in self._items if item[2].stage is Stage.WAITING]

    def replace(self, waiting: Iterable[tuple[float, Waiting]]) -> None:
        """Hold these and no others."""
        self._items = [(at, one.number, one) for at, one in waiting]
        heapq.heapify(self._items)
        self._removed = 0
