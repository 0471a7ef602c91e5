"""Which model a request is given, where rewrites of its pool say so.

Shares hold at any moment, not only in the mean: draws go around a circle in steps of the golden ratio, which spreads
them more evenly than chance. The share of a target is off by less than 0.1 % after 10,000 requests, where dice are off
by 0.5 %, and there is no short period that traffic of its own rhythm could fall in step with.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import xxhash

from controller.headers import TARGET_HEADER
from controller.pools import ModelRewrite

OTHER: Final = "other"
"""In counts: every model that no rewrite names."""
MOST_RULES: Final = 1000
"""Rules of a pool whose place on the circle is remembered when they are gone for a while."""
_STEP: Final = 0.6180339887498949
_TARGET: Final = TARGET_HEADER.encode()
_UNSPEAKABLE: Final = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
"""What no header can say, by which the name goes to NGINX."""


@dataclass
class Rewritten:
    """What is remembered of a pool's rewrites, as long as the pool lives."""

    places: dict[str, float] = field(default_factory=dict)
    """On the circle, in [0, 1), by rewrite."""
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Requests by the source of the rewrite, the model that they name, and the one that they were given."""


class ModelTargets:
    """Draws targets for the requests of a pool."""

    def __init__(self, rewrites: Sequence[ModelRewrite], *, memory: Rewritten) -> None:
        rules = [_Rule(item) for item in rewrites if not _is_unspeakable(item)]
        self._by_model: Mapping[str, _Rule] = {model: rule for rule in reversed(rules) for model in rule.rewrite.models}
        self._other = next((rule for rule in rules if not rule.rewrite.models), None)
        self._memory = memory
        if len(memory.places) > MOST_RULES:
            memory.places.clear()

    def draw(self, model: str, headers: Mapping[bytes, bytes]) -> str:
        """The model for a request that names one; empty where it keeps its own. A retry keeps its first."""
        rule = self._by_model.get(model) or self._other
        if rule is None:
            return ""
        if given := headers.get(_TARGET):
            return given.decode("utf-8", "replace")
        target = rule.names[bisect_right(rule.bounds, self._place(rule, headers))]
        self._memory.counts[rule.rewrite.source, model if model in self._by_model else OTHER, target] += 1
        return target

    def _place(self, rule: "_Rule", headers: Mapping[bytes, bytes]) -> float:
        """In [0, 1). The same for all requests with the same value of a header that keeps users on one side."""
        user = headers.get(rule.sticky_header) if rule.sticky_header else None
        if user:
            return xxhash.xxh3_64_intdigest(user, seed=rule.seed) / 2**64
        places = self._memory.places
        place = (places.get(rule.rewrite.source, 0.5) + _STEP) % 1.0
        places[rule.rewrite.source] = place
        return place


class _Rule:
    """A rewrite made ready for drawing."""

    def __init__(self, rewrite: ModelRewrite) -> None:
        shared = [target for target in rewrite.targets if target.weight]
        total = sum(target.weight for target in shared)
        self.rewrite = rewrite
        self.names = tuple(target.model for target in shared)
        # A user at a bound goes on to the next target; the last one has no bound, so rounding leaves nobody out.
        self.bounds = tuple(part / total for part in accumulate(target.weight for target in shared))[:-1]
        self.sticky_header = rewrite.sticky_header.encode()
        # Who is early in one rollout need not be early in all.
        self.seed = xxhash.xxh3_64_intdigest(rewrite.source.encode())


def _is_unspeakable(rewrite: ModelRewrite) -> bool:
    return any(_UNSPEAKABLE.search(target.model) for target in rewrite.targets)
