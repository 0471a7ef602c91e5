"""What is taken from the requests of a run."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from tools.bench.picking.load import Request
from tools.bench.samples import percentile

FIRST_TOKEN_WITHIN: Final = 1.0
"""Seconds; longer feels like a system that hangs. The pods compute 2,000 tokens that they do not have in half of it."""
TOKEN_WITHIN: Final = 0.05
"""Seconds per token after the first: three times that of a pod with ten answers at work, five words a second."""


class Figures(msgspec.Struct, frozen=True):
    """Of the requests that were sent after the warm-up. Times are seconds, shares in [0, 1]."""

    requests: int
    failed: int
    """Answered with another status than 200, not at all, or not wholly."""
    first_p50: float
    """Time to the first token; a failed request counts as one that took all the time there was."""
    first_p90: float
    token_p90: float
    """Time per token after the first."""
    goodput: float
    """Requests that met both objectives, of all."""
    hit_share: float
    """Prompt tokens that the pods had cached, of all."""
    late_p99: float
    """Between the moment in which a request was due and that in which it was sent."""
    by_pod: dict[str, int]
    """Answers of each pod, sorted by its name."""


def figures(requests: Iterable[Request], *, warm_up: float, patience: float) -> Figures | None:
    """None when nothing was sent after the warm-up. `patience` is the time to first token of what failed."""
    counted = [each for each in requests if each.sent >= warm_up]
    if not counted:
        return None
    answered = [each for each in counted if each.status == 200]
    first = [each.first if each.status == 200 else patience for each in counted]
    tokens = [seconds_per_token(each) for each in answered] or [0.0]
    prompt_tokens = sum(each.prompt_tokens for each in answered)
    return Figures(
        requests=len(counted),
        failed=len(counted) - len(answered),
        first_p50=percentile(first, 0.5),
        first_p90=percentile(first, 0.9),
        token_p90=percentile(tokens, 0.9),
        goodput=sum(map(is_good, answered)) / len(counted),
        hit_share=sum(each.cached_tokens for each in answered) / max(1, prompt_tokens),
        late_p99=percentile([each.late for each in counted], 0.99),
        by_pod=dict(sorted(Counter(each.pod for each in answered).items())),
    )


def is_good(request: Request) -> bool:
    """Whether an answer met both objectives."""
    return request.first <= FIRST_TOKEN_WITHIN and seconds_per_token(request) <= TOKEN_WITHIN


def seconds_per_token(request: Request) -> float:
    """Of an answer, after its first token."""
    return (request.whole - request.first) / max(1, request.answer_tokens - 1)
