"""What became of the requests of a pool, as plain numbers by the labels that the field has for them.

A request looks its counts up once, at its pick, and adds to lists; the names of metrics are the page's business. Labels
must not come from clients: models count by name that the pool is known to serve or that a rewrite names, and there are
so many sets of labels and no more. Attributes and calls are few: in a compiled module each takes as long as a sum.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Sequence
from typing import Final, Protocol

from controller.completions import Completion

OTHER: Final = "other"
"""Every model that is not known; and all labels of what finds no room."""
MOST_SETS: Final = 1000
"""Sets of labels in a pool, of 3 KB each."""
DURATIONS: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
)  # fmt: skip
"""Bounds of buckets are the field's, here and below. Source: llm-d-router, pkg/epp/metrics."""
FIRST_TOKENS: Final = DURATIONS[: DURATIONS.index(120.0) + 1]
REQUEST_SIZES: Final = tuple(2**power for power in range(6, 31))
RESPONSE_SIZES: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536)
"""32778 is theirs: other bounds could not be added to it."""
PROMPT_TOKENS: Final = (*RESPONSE_SIZES, 131072, 262144, 524288, 1048576)
COMPLETION_TOKENS: Final = RESPONSE_SIZES[: RESPONSE_SIZES.index(8192) + 1]
SECONDS_PER_TOKEN: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STREAMED_SECONDS_PER_TOKEN: Final = (
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0,
)  # fmt: skip
SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_MODEL_SERVER_ERROR: Final = "ModelServerError"
_ERROR_CODES: Final = {
    400: "BadRequest",
    404: "NotFound",
    413: "BadRequest",
    429: "ResourceExhausted",
    500: "Internal",
    502: _MODEL_SERVER_ERROR,
    503: "ServiceUnavailable",
    504: _MODEL_SERVER_ERROR,
}
"""By the status of a refusal; values are the field's. 502 and 504 are refusals of requests that were tried."""
_HUNG_UP: Final = 499

Bounds = Sequence[float]
Labels = tuple[str, str, int | str]
"""The model as the client names it, the model as the model server gets it, and the priority."""


Histogram = list[float]
"""How many values there were up to each bound, not cumulative, then those above, then the sum of all."""


def histogram(bounds: Bounds) -> Histogram:
    """An empty one."""
    return [0] * (len(bounds) + 2)


class Sent(Protocol):
    """What is known of a request that an endpoint was picked for."""

    queued: float
    """Seconds that it waited to be picked for."""
    is_streamed: bool
    waited: float | None
    """Seconds from the pick to the first byte of a stream."""


class TokenCounts:
    """What answers told of their tokens."""

    __slots__ = ("cached", "completion", "per_token", "per_token_streamed", "prompt")

    def __init__(self) -> None:
        self.prompt = histogram(PROMPT_TOKENS)
        self.cached = histogram(PROMPT_TOKENS)
        self.completion = histogram(COMPLETION_TOKENS)
        self.per_token = histogram(SECONDS_PER_TOKEN)
        """Of the whole request."""
        self.per_token_streamed = histogram(STREAMED_SECONDS_PER_TOKEN)
        """After the first."""

    def add(self, completion: Completion, sent: Sent) -> None:
        """Count what an answer told. One that was broken off has tokens, and no pace."""
        prompt, cached, tokens = completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens
        if prompt:
            told = self.prompt
            told[bisect_left(PROMPT_TOKENS, prompt)] += 1
            told[-1] += prompt
        if cached is not None:
            told = self.cached
            told[bisect_left(PROMPT_TOKENS, cached)] += 1
            told[-1] += cached
        if not tokens:
            return
        told = self.completion
        told[bisect_left(COMPLETION_TOKENS, tokens)] += 1
        told[-1] += tokens
        if not completion.is_whole:
            return
        duration = completion.duration
        seconds = duration / tokens
        told = self.per_token
        told[bisect_left(SECONDS_PER_TOKEN, seconds)] += 1
        told[-1] += seconds
        if tokens > 1 and sent.is_streamed:
            first = _first_byte(completion, sent)
            if first is not None and duration > first:
                seconds = (duration - first) / (tokens - 1)
                told = self.per_token_streamed
                told[bisect_left(STREAMED_SECONDS_PER_TOKEN, seconds)] += 1
                told[-1] += seconds


class RequestCounts:
    """Requests of the same labels."""

    __slots__ = ("durations", "errors", "first_bytes", "first_bytes_streamed", "received", "sent", "tokens")

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        """By code."""
        self.received = histogram(REQUEST_SIZES)
        """Bytes of the bodies of all of them."""
        self.sent = histogram(RESPONSE_SIZES)
        """Bytes of the bodies of answers."""
        self.durations = histogram(DURATIONS)
        self.first_bytes = histogram(FIRST_TOKENS)
        """Of answers that are not streamed, which come as a whole."""
        self.first_bytes_streamed = histogram(FIRST_TOKENS)
        self.tokens = TokenCounts()

    def begin(self, size: int) -> None:
        """Count a request, whose body has so many bytes. Not again for another try of it."""
        told = self.received
        told[bisect_left(REQUEST_SIZES, size)] += 1
        told[-1] += size

    def refuse(self, status: int) -> None:
        """The picker answered one with an error."""
        self.errors[_ERROR_CODES.get(status, "Unknown")] += 1

    def end(self, completion: Completion, sent: Sent) -> None:
        """One that an endpoint was picked for is over. What was broken off has no duration and no size."""
        status = completion.status
        is_answered = 0 < status < 400
        if not is_answered and status != _HUNG_UP:
            self.errors[_MODEL_SERVER_ERROR] += 1
        if not completion.is_whole:
            return
        value = completion.duration
        told = self.durations
        told[bisect_left(DURATIONS, value)] += 1
        told[-1] += value
        size = completion.sent
        told = self.sent
        told[bisect_left(RESPONSE_SIZES, size)] += 1
        told[-1] += size
        if is_answered:
            first = _first_byte(completion, sent)
            if first is not None:
                told = self.first_bytes_streamed if sent.is_streamed else self.first_bytes
                told[bisect_left(FIRST_TOKENS, first)] += 1
                told[-1] += first


CountsByLabels = dict[Labels, RequestCounts]


def counts_of(counts: CountsByLabels, labels: Labels, *, known: Sequence[Container[str]]) -> RequestCounts:
    """The counts for a request of these labels, of which `known` models may have a name."""
    model, target, priority = labels
    labels = (_known(model, known), _known(target, known), priority)
    if labels not in counts and len(counts) >= MOST_SETS - 1:
        labels = (OTHER, OTHER, OTHER)
    found = counts.get(labels)
    if found is None:
        found = counts[labels] = RequestCounts()
    return found


def _first_byte(completion: Completion, sent: Sent) -> float | None:
    """Seconds from the request to the first byte of its answer's body; None where it is not known."""
    first = completion.first_byte
    if not sent.is_streamed:
        return first
    waited = sent.waited
    if waited is None:
        return None
    waited += sent.queued
    # Headers come before the body, and their time holds an upload and the tries that failed.
    return waited if first is None or first < waited else first


def _known(model: str, known: Sequence[Container[str]]) -> str:
    """The name of a model, where it has one; a request need not name any."""
    return model if not model or any(model in names for names in known) else OTHER
