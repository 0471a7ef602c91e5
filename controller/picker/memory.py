"""What is remembered of a pool, whatever endpoints it has and whichever plugins choose among them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from controller.picker.rates import Rates
from controller.picker.request_counts import (
    MOST_SETS,
    SHARES,
    CountsByLabels,
    Histogram,
    Labels,
    RequestCounts,
    counts_of,
    histogram,
)
from controller.picker.served import LONGEST_NAME
from controller.picker.targets import Rewritten
from controller.picker.usage import UsageByModel

T = TypeVar("T")


@dataclass
class CachedTokens:
    """Tokens of prompts, and how many of them were cached."""

    prompt: int = 0
    cached: int = 0

    def add(self, prompt: int, cached: int) -> None:
        """Count one prompt."""
        self.prompt += prompt
        self.cached += cached


@dataclass
class PoolMemory:
    """Lives as long as the pool; profiles that are replaced find their state here again."""

    rates: Rates = field(default_factory=Rates)
    predicted: CachedTokens = field(default_factory=CachedTokens)
    """Of all prompts sent, by the index."""
    reported: CachedTokens = field(default_factory=CachedTokens)
    """Of answers that carry their usage, by the endpoint."""
    predicted_of_reported: int = 0
    """Tokens that the index expected to be cached, of the prompts that count in `reported`."""
    adapters: set[str] = field(default_factory=set)
    """LoRA adapters that its endpoints told of."""
    models: set[str] = field(default_factory=set)
    """Models and LoRA adapters that its endpoints say they serve."""
    usage: UsageByModel = field(default_factory=UsageByModel)
    """As answers told it."""
    rewritten: Rewritten = field(default_factory=Rewritten)
    """Requests that were given another model."""
    named: frozenset[str] = frozenset()
    """Models that its rewrites name, and those that they give."""
    counts: CountsByLabels = field(default_factory=dict)
    """Of requests, by the labels that are told of them."""
    found_counts: CountsByLabels = field(default_factory=dict)
    """The same by the labels that requests came with, as far as they were asked for; for where it is hot."""
    hit_ratios: Histogram = field(default_factory=partial(histogram, SHARES))
    """Shares of prompts that the picked endpoint had by its index, in chunks."""
    first_byte_timeout: float | None = None
    """Seconds, as the pool's policy says; None where it does not."""
    _kept: dict[str, object] = field(default_factory=dict)

    def counts_of(self, labels: Labels) -> RequestCounts:
        """Where a request counts of these labels, as far as they may be told."""
        found = self.found_counts.get(labels)
        if found is None:
            found = counts_of(self.counts, labels, known=(self.models, self.adapters, self.named))
            if len(self.found_counts) >= MOST_SETS:
                self.found_counts.clear()
            if len(labels[0]) <= LONGEST_NAME:
                self.found_counts[labels] = found
        return found

    def keep(self, name: str, make: Callable[[], T]) -> T:
        """The state of a plugin by that name, made when there is none."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(T, self._kept[name])
