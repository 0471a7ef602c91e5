"""What was asked, expected and seen in a scene, and whether it holds."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

CHANCE: Final = 1e-5
"""How often a verdict may fail though all is well, where chance has a part in it."""
LIVE_WITHIN: Final = 2.0
"""Seconds. A change is live in a tenth of a second on an idle machine."""


@dataclass(frozen=True)
class Answer:
    """A request and what became of it."""

    id: str
    status: int
    """0 when there was no answer."""
    pool: str
    """From the answer's header; empty when no pool answered."""
    begun: float = 0.0
    """When it was sent, in seconds of a monotonic clock."""


@dataclass(frozen=True)
class Verdict:
    """A line of the table."""

    scene: str
    asked: str
    expected: str
    seen: str
    holds: bool


def from_pool(scene: str, asked: str, answers: Sequence[Answer], *, pool: str, statuses: Mapping[int, str]) -> Verdict:
    """All answers come from one pool. `statuses` are those that are right, each with what it means."""
    pools, codes = Counter(answer.pool for answer in answers), Counter(answer.status for answer in answers)
    holds = bool(answers) and pools.keys() == {pool} and codes.keys() <= statuses.keys()
    said = ", ".join(f"{code} {statuses.get(code, 'unexpected')}" for code in sorted(codes))
    return Verdict(scene, asked, f"all from {pool}", f"{_counts(pools)}; status {said}", holds)


def split(
    scene: str, asked: str, answers: Sequence[Answer], *, shares: tuple[tuple[str, float], tuple[str, float]]
) -> Verdict:
    """Answers are divided between two pools by their shares, as far as chance lets them."""
    (first, share), (second, _) = shares
    pools = Counter(answer.pool for answer in answers)
    low, high = bounds(len(answers), share, chance=CHANCE)
    complete = pools.keys() <= {first, second} and all(answer.status == 200 for answer in answers)
    expected = f"{first} {low} to {high}, {second} the rest"
    return Verdict(scene, asked, expected, _counts(pools), complete and low <= pools[first] <= high)


def all_used(scene: str, *, pods: Sequence[str], served: Counter[str]) -> Verdict:
    """Every pod got some of the requests, and nobody else did."""
    holds = served.keys() == set(pods)
    return Verdict(scene, "the pods that served them", f"all {len(pods)}", _counts(served), holds)


def spared(scene: str, *, pool: str, pods: Sequence[str], busy: str, served: Counter[str]) -> Verdict:
    """The pod of a pool that is busy gets none of the requests, the others get all."""
    free = [pod for pod in pods if pod != busy]
    asked = f"{served.total()} chats to {pool} while {busy or 'nobody'} is busy"
    holds = busy in pods and bool(served) and served.keys() <= set(free)
    return Verdict(scene, asked, f"all to {' or '.join(free)}", _counts(served), holds)


def streamed(scene: str, *, pod: str, events: int, is_whole: bool) -> Verdict:
    """An answer came in pieces. `is_whole`: as an event stream that went on until the client left."""
    seen = f"{events} events" if is_whole else f"{events} events, cut short"
    return Verdict(scene, f"the stream of {pod or 'nobody'}", "events as they are made", seen, is_whole and events > 1)


def streak(share: float, *, chance: float) -> int:
    """How many answers in a row from a pool of this share come by chance less often than `chance`."""
    length = 1
    while share**length >= chance:
        length += 1
    return length


def went_live(scene: str, answers: Sequence[Answer], *, asked: str, pool: str, edited: float, length: int) -> Verdict:
    """From some answer on all come from one pool, at least `length` of them, and none fails on the way."""
    failed = sum(answer.status != 200 for answer in answers)
    first = max((number for number, answer in enumerate(answers, start=1) if answer.pool != pool), default=0)
    settled = answers[first:]
    expected = f"all from {pool} within {LIVE_WITHIN:g} s, none fails"
    if len(settled) < length:
        return Verdict(scene, asked, expected, f"not live after {len(answers)} chats, {failed} failed", holds=False)
    seconds = settled[0].begun - edited
    seen = f"from chat {first + 1} on, after {seconds * 1000:.0f} ms; {failed} failed"
    return Verdict(scene, asked, expected, seen, seconds <= LIVE_WITHIN and not failed)


def logged(scene: str, lines: Sequence[str], *, file: str, change: str) -> Verdict:
    """The log names the file, the change, and the milliseconds until it was live."""
    text = "\n".join(lines)
    live = re.search(rf"^.*{re.escape(file)}.*\bmilliseconds=([\d.]+)", text, re.MULTILINE)
    found = [
        file if live else "no file",
        change if change in text else "no change",
        f"{live[1]} ms" if live else "no time",
    ]
    return Verdict(
        scene, "the log of the change", f"{file}, {change}, ms", ", ".join(found), bool(live) and change in text
    )


def bounds(count: int, share: float, *, chance: float) -> tuple[int, int]:
    """The narrowest range that a binomial number leaves on either side with half of `chance` at most."""
    probabilities = [comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(count + 1)]
    return _first_above(probabilities, chance / 2), count - _first_above(probabilities[::-1], chance / 2)


def _first_above(probabilities: Sequence[float], tail: float) -> int:
    total = 0.0
    for index, probability in enumerate(probabilities):
        total += probability
        if total > tail:
            return index
    return len(probabilities) - 1


def table(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as aligned columns, with a final newline."""
    head = ("scene", "asked", "expected", "seen", "")
    rows = [
        head,
        *((each.scene, each.asked, each.expected, each.seen, "ok" if each.holds else "FAILED") for each in verdicts),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'nobody'} {count}" for name, count in sorted(counted.items())) or "nothing"
