"""KV blocks with prefix caching.

A block is private to its sequence until it is full; then it is known by its hash and others may share it. A known
block that nobody holds stays until its room is needed, the one longest unused first. Of two sequences that compute the
same block at once, only the first one's block becomes known, as in vLLM.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Holding:
    """The blocks of one sequence."""

    shared: list[int] = field(default_factory=list)
    """Hashes of the known blocks it holds."""
    private: int = 0
    filled: int = 0
    """How many of its blocks are full, from the start, known or not."""

    def __len__(self) -> int:
        return len(self.shared) + self.private


class Blocks:
    def __init__(self, total: int) -> None:
        self.total = total
        self._empty = total
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be had, those that are cached for nobody included."""
        return self._empty + len(self._idle)

    @property
    def usage(self) -> float:
        """Share of blocks that sequences hold, in [0, 1]."""
        return 1 - self.available / self.total

    def match(self, hashes: Sequence[int], *, limit: int) -> int:
        """How many blocks from the start are known, at most `limit`."""
        holders = self._holders
        matched = 0
        for known in hashes[:limit]:
            if known not in holders:
                break
            matched += 1
        return matched

    def hold_prefix(self, hashes: Sequence[int], *, matched: int, extra: int) -> Holding | None:
        """Hold the first `matched` blocks, all of them known; None if `extra` more could not be had beside them."""
        prefix = list(hashes[:matched])
        idle = sum(1 for known in prefix if self._holders[known] == 0)
        if self.available - idle < extra:
            return None
        for known in prefix:
            if self._holders[known] == 0:
                del self._idle[known]
            self._holders[known] += 1
        return Holding(shared=prefix, filled=matched)

    def grow(self, holding: Holding, *, to: int, hashes: Sequence[int], full: int) -> bool:
        """Give a sequence `to` blocks, of which the first `full` will be full. False, and no change, without room."""
        missing = to - len(holding)
        if missing > self.available:
            return False
        for _ in range(missing - self._empty):
            oldest, _ = self._idle.popitem(last=False)
            del self._holders[oldest]
            self._empty += 1
        self._empty -= missing
        holding.private += missing
        for filled in hashes[holding.filled : full]:
            if filled not in self._holders:
                self._holders[filled] = 1
                holding.shared.append(filled)
                holding.private -= 1
        holding.filled = max(holding.filled, full)
        return True

    def release(self, holding: Holding) -> None:
        """Take back all blocks of a sequence. The end of a prefix is reused before its beginning."""
        holders, idle = self._holders, self._idle
        for known in reversed(holding.shared):
            holders[known] -= 1
            if holders[known] == 0:
                idle[known] = None
        self._empty += holding.private
        holding.shared, holding.private, holding.filled = [], 0, 0
