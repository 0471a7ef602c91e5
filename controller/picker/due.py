"""Requests in flight by the time at which their bytes leave the backlog.

Times are kept in steps, one set for each, so that adding, dropping and taking a request cost the same however many
there are. A heap of requests cost a pick 3 us, and kept those that had ended until they were due.
"""

import heapq
from collections.abc import Iterable
from typing import Final

from controller.picker.endpoints import Sent

STEP: Final = 0.002
"""Seconds by which a request is late at most: little beside any first byte."""


class Due:
    """Which requests are due when. Each is in it once at most, under its `Sent.due`."""

    __slots__ = ("_groups", "_steps")

    def __init__(self) -> None:
        self._groups: dict[int, set[Sent]] = {}
        self._steps: list[int] = []
        """Heap of the keys of the groups."""

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def add(self, sent: Sent, at: float) -> None:
        """Have a request taken at that time."""
        step = sent.due = int(at / STEP) + 1
        group = self._groups.get(step)
        if group is None:
            self._groups[step] = {sent}
            heapq.heappush(self._steps, step)
        else:
            group.add(sent)

    def drop(self, sent: Sent) -> None:
        """Forget a request that was added."""
        group = self._groups.get(sent.due)
        if group is not None:
            group.discard(sent)

    def take(self, now: float) -> Iterable[Sent]:
        """The requests that are due, each once."""
        steps = self._steps
        if not steps or steps[0] * STEP > now:
            return ()
        taken: list[Sent] = []
        while steps and steps[0] * STEP <= now:
            taken += self._groups.pop(heapq.heappop(steps))
        return taken
