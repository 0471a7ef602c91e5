"""Metrics of requests under the names of the field, as text.

The library takes 10 us for a line, 2 s for a pool of a thousand models, in which nobody is picked for. So these are
written here, at a twentieth of that, and in pieces between which others have their turn.
Labels are the field's but `fairness_id`, which clients fill; a pool is told by name and namespace.
Source: llm-d-router, docs/metrics.md; Prometheus, exposition formats.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Final

from controller.picker.inflight import InFlight
from controller.picker.pools import PoolTable
from controller.picker.request_counts import (
    COMPLETION_TOKENS,
    DURATIONS,
    FIRST_TOKENS,
    PROMPT_TOKENS,
    REQUEST_SIZES,
    RESPONSE_SIZES,
    SECONDS_PER_TOKEN,
    STREAMED_SECONDS_PER_TOKEN,
    Bounds,
    Histogram,
    RequestCounts,
    TokenCounts,
)

_PREFIX: Final = "llm_d_epp_"
_TOGETHER: Final = 50
"""Sets of labels in a piece; 2 ms."""

Labelled = Sequence[tuple[str, RequestCounts]]
"""Counts with their labels as text, without braces."""
_HISTOGRAMS: Final[Mapping[str, tuple[str, Bounds, Callable[[RequestCounts], Histogram]]]] = {
    "request_duration_seconds": ("From the request to the end of its answer.", DURATIONS, lambda one: one.durations),
    "request_size_bytes": ("Bodies of requests.", REQUEST_SIZES, lambda one: one.received),
    "response_size_bytes": ("Bodies of answers.", RESPONSE_SIZES, lambda one: one.sent),
}
_OF_TOKENS: Final[Mapping[str, tuple[str, Bounds, Callable[[TokenCounts], Histogram]]]] = {
    "request_input_tokens": ("Of prompts, as answers told.", PROMPT_TOKENS, lambda one: one.prompt),
    "request_cached_tokens": ("Of prompts, those that were cached.", PROMPT_TOKENS, lambda one: one.cached),
    "request_output_tokens": ("Of answers, as they told.", COMPLETION_TOKENS, lambda one: one.completion),
    "request_ntpot_seconds": ("Duration by output token.", SECONDS_PER_TOKEN, lambda one: one.per_token),
    "request_streaming_tpot_seconds": (
        "Duration after the first token of a stream, by output token after it.",
        STREAMED_SECONDS_PER_TOKEN,
        lambda one: one.per_token_streamed,
    ),
}


def request_page(table: PoolTable, in_flight: InFlight) -> Iterator[bytes]:
    """The families, in pieces; what happens between two of them may be told in the later one."""
    found = [
        (_labels(pool.name, *labels), counts)
        for pool in table.pools.values()
        for labels, counts in pool.memory.counts.items()
    ]
    for lines in (_counts(found, in_flight), _first_bytes(found), _histograms(found)):
        while piece := "".join(islice(lines, _TOGETHER)):
            yield piece.encode()


def _counts(found: Labelled, in_flight: InFlight) -> Iterator[str]:
    yield _head("request_total", "Requests of a pool.", "counter")
    for labels, counts in found:
        yield f"{_PREFIX}request_total{{{labels}}} {sum(counts.received[:-1])}\n"
    yield _head("request_error_total", "Requests that got an error.", "counter")
    for labels, counts in found:
        for code, count in sorted(counts.errors.items()):
            yield f'{_PREFIX}request_error_total{{error_code="{code}",{labels}}} {count}\n'
    running = Counter(id(sent.counts) for sent in in_flight.requests)
    yield _head("request_running", "From pick to completion.", "gauge")
    for labels, counts in found:
        yield f"{_PREFIX}request_running{{{labels}}} {running[id(counts)]}\n"


def _first_bytes(found: Labelled) -> Iterator[str]:
    name = "request_ttft_seconds"
    yield _head(name, "From the request to the first byte of its answer's body.", "histogram")
    told = ((f'{labels},streaming="false"', counts.first_bytes) for labels, counts in found)
    yield from _samples(name, FIRST_TOKENS, told)
    told = ((f'{labels},streaming="true"', counts.first_bytes_streamed) for labels, counts in found)
    yield from _samples(name, FIRST_TOKENS, told)


def _histograms(found: Labelled) -> Iterator[str]:
    for name, (text, bounds, of) in _HISTOGRAMS.items():
        yield _head(name, text, "histogram")
        yield from _samples(name, bounds, ((labels, of(counts)) for labels, counts in found))
    for name, (text, bounds, of_tokens) in _OF_TOKENS.items():
        yield _head(name, text, "histogram")
        yield from _samples(name, bounds, ((labels, of_tokens(counts.tokens)) for labels, counts in found))


def _samples(name: str, bounds: Bounds, histograms: Iterable[tuple[str, Histogram]]) -> Iterator[str]:
    """The lines of one histogram after the other; of an empty one none."""
    buckets = [f'{_PREFIX}{name}_bucket{{le="{bound}",' for bound in (*map(float, bounds), "+Inf")]
    for labels, (*counts, total) in histograms:
        if not any(counts):
            continue
        at_most = list(accumulate(counts))
        lines = [f"{bucket}{labels}}} {count}\n" for bucket, count in zip(buckets, at_most, strict=True)]
        lines.append(f"{_PREFIX}{name}_count{{{labels}}} {at_most[-1]}\n")
        lines.append(f"{_PREFIX}{name}_sum{{{labels}}} {total}\n")
        yield "".join(lines)


def _head(name: str, text: str, kind: str) -> str:
    return f"# HELP {_PREFIX}{name} {text}\n# TYPE {_PREFIX}{name} {kind}\n"


def _labels(pool: str, model: str, target: str, priority: int | str) -> str:
    """Sorted by name, as those that the library writes."""
    namespace, _, name = pool.rpartition("/")
    return (
        f'model_name="{_escaped(model)}",name="{name}",namespace="{namespace}",priority="{priority}",'
        f'target_model_name="{_escaped(target)}"'
    )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
