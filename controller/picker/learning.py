"""What an answer teaches: the pool's rates, the endpoint's speed, and how far its prefix index is right.

Only whole answers with a status of success teach. A refusal comes at once, and a client that hangs up ends an answer
early: both say nothing about how fast a model works. So first bytes count when their answer has ended.
"""

from typing import Final

from controller.completions import Completion
from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.endpoints import Endpoint, Sent
from controller.picker.usage import tells_usage

STEP: Final = 0.1
"""Weight of one answer in an endpoint's means."""


def learn(sent: Sent, completion: Completion, *, now: float) -> None:
    """Learn from a request that was answered. Tokens that were read count also where the very end is missing."""
    if completion.is_whole:
        _learn_times(sent, completion, now=now)
    memory = sent.memory
    if tells_usage(completion):
        memory.usage.add(sent.model, completion, known=(memory.adapters, memory.models))
        if sent.counts is not None:
            sent.counts.tokens.add(completion, sent)
    if completion.prompt_tokens and completion.cached_tokens is not None:
        _compare(sent, completion.prompt_tokens, min(completion.cached_tokens, completion.prompt_tokens))


def _learn_times(sent: Sent, completion: Completion, *, now: float) -> None:
    endpoint = sent.endpoint
    rates = sent.memory.rates
    # NGINX's duration holds the wait for the body too; ours, the wait for the feed.
    residence = max(0.0, min(now - sent.at, completion.duration))
    rates.ended(residence)
    # An answer that is not streamed has its first byte at its end.
    if sent.is_streamed and sent.waited is not None:
        slowness = endpoint.slowness
        endpoint.worked(rates.answered(sent.waited, ahead=sent.ahead, slowness=slowness, loaded=sent.is_loading))
        _learn_latency(endpoint, sent.waited, rest=residence - sent.waited, size=completion.sent)


def _learn_latency(endpoint: Endpoint, waited: float, *, rest: float, size: int) -> None:
    endpoint.first_byte_time = _moved(endpoint.first_byte_time, waited)
    if size > 0:
        endpoint.byte_time = _moved(endpoint.byte_time, max(0.0, rest) / size)


def _moved(mean: float | None, value: float) -> float:
    return value if mean is None else mean + STEP * (value - mean)


def _compare(sent: Sent, prompt: int, cached: int) -> None:
    """Compare what the index expected to be cached with what the answer says."""
    memory = sent.memory
    memory.reported.add(prompt, cached)
    expected = sent.matched_bytes / sent.prompt_bytes if sent.prompt_bytes else 0.0
    memory.predicted_of_reported += round(expected * prompt)
    if sent.prompt_bytes >= BYTES_PER_TOKEN:
        sent.endpoint.prefixes.compare(predicted=expected, reported=cached / prompt)
