"""What two policies did with the same requests, counted and as a table."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.picker.chunks import BYTES_PER_TOKEN


@dataclass
class Side:
    """One of the two."""

    picks: Counter[str] = field(default_factory=Counter)
    """By endpoint."""
    prompt: Counter[str] = field(default_factory=Counter)
    """Bytes of prompts, by endpoint."""
    uncached: Counter[str] = field(default_factory=Counter)
    """Of these, what the endpoint did not have by its index."""
    refused: int = 0

    def add(self, endpoint: str, *, prompt: int, cached: int) -> None:
        """Count a request at an endpoint; without one it was refused."""
        if not endpoint:
            self.refused += 1
            return
        self.picks[endpoint] += 1
        self.prompt[endpoint] += prompt
        self.uncached[endpoint] += prompt - cached

    @property
    def hit_share(self) -> float:
        """Of the bytes of all prompts, what was expected to be cached."""
        prompt = self.prompt.total()
        return 1.0 - self.uncached.total() / prompt if prompt else 0.0


@dataclass
class Tally:
    """Of one pool."""

    endpoints: set[str] = field(default_factory=set)
    """All that it had at some time."""
    recorded: Side = field(default_factory=Side)
    replayed: Side = field(default_factory=Side)
    requests: int = 0
    changed: int = 0
    """Requests that went elsewhere than they were recorded to."""

    def imbalance(self, counts: Counter[str]) -> float:
        """The most that one endpoint has, relative to the mean over all; 1 is even."""
        total = counts.total()
        return max(counts.values()) * len(self.endpoints | counts.keys()) / total if total else 0.0


def table(tallies: Mapping[str, Tally], *, length: float) -> str:
    """A table for each pool, sorted by name. `length` of the trace in seconds."""
    lines = [f"{sum(tally.requests for tally in tallies.values()):,} requests in {length:,.1f} s"]
    for name, tally in sorted(tallies.items()):
        lines += ["", f"pool {name}: {tally.requests:,} requests, {len(tally.endpoints)} endpoints"]
        lines += [f"  {title:<32}{before:>12}{after:>12}" for title, before, after in _rows(tally)]
    return "\n".join(lines) + "\n"


def _rows(tally: Tally) -> Iterator[tuple[str, str, str]]:
    yield ("", "recorded", "replayed")
    yield _row(tally, "predicted hit share", lambda side: f"{side.hit_share:.1%}")
    yield _row(tally, "uncached prompt tokens", lambda side: f"{side.uncached.total() // BYTES_PER_TOKEN:,}")
    yield _row(tally, "picks, most / mean", lambda side: f"{tally.imbalance(side.picks):.2f}")
    yield _row(tally, "prompt tokens, most / mean", lambda side: f"{tally.imbalance(side.prompt):.2f}")
    yield _row(tally, "uncached tokens, most / mean", lambda side: f"{tally.imbalance(side.uncached):.2f}")
    yield _row(tally, "refused", lambda side: f"{side.refused:,}")
    share = tally.changed / tally.requests if tally.requests else 0.0
    yield ("picks changed", f"{tally.changed:,}", f"{share:.1%}")


def _row(tally: Tally, title: str, told: Callable[[Side], str]) -> tuple[str, str, str]:
    return title, told(tally.recorded), told(tally.replayed)
