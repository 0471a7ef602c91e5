"""vLLM's Prometheus series of a pod, in the text format.

Counted in plain integers and written only when asked: a histogram of prometheus_client costs more per observation than
the engine's step does per sequence.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

_FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_REMEMBERED_ADAPTER_SETS = 8
"""vLLM keeps a series for every set of adapters it ever ran; a few are enough to make a reader choose the newest."""


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Less than nothing is nothing: a late step counts from when it was due, for what arrived since then too."""
        value = max(0.0, value)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        lines = []
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_count{{{labels}}} {total}", f"{name}_sum{{{labels}}} {self._sum!r}"]


@dataclass(slots=True)
class Totals:
    """What an engine has counted since it began. Token counts are tokens, cache counts too."""

    prompt_lengths: Histogram
    """Tokens of the prompts of requests that have ended."""
    answer_lengths: Histogram
    """Of their answers."""
    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    """Requests by vLLM's finished_reason."""
    queued: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS))
    first_token: Histogram = field(default_factory=lambda: Histogram(_FIRST_TOKEN_BOUNDS))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(_TOKEN_BOUNDS))
    end_to_end: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS))
    prefill: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS))
    """From the first step of a request to its first token."""
    decode: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS))
    """From its first token to its last."""
    inference: Histogram = field(default_factory=lambda: Histogram(_REQUEST_BOUNDS))
    """Both together."""
    per_token: Histogram = field(default_factory=lambda: Histogram(_TOKEN_BOUNDS))
    """Mean time between the tokens of a request; 0 where there is one."""


def length_bounds(longest: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, ... up to `longest` tokens."""
    bounds = (mantissa * 10**exponent for exponent in range(len(str(longest))) for mantissa in (1, 2, 5))
    return tuple(float(bound) for bound in bounds if bound <= longest)


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine holds at one moment."""

    running: int
    waiting: int
    kv_usage: float
    running_adapters: tuple[str, ...]
    waiting_adapters: tuple[str, ...]


class AdapterSets:
    """The sets of adapters that were seen, each with the Unix time at which it was last seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def see(self, load: Load, *, now: float) -> None:
        names = ",".join(load.running_adapters), ",".join(load.waiting_adapters)
        self._seen.pop(names, None)
        self._seen[names] = now
        if len(self._seen) > _REMEMBERED_ADAPTER_SETS:
            del self._seen[next(iter(self._seen))]

    def lines(self, *, slots: int) -> list[str]:
        return [
            f'vllm:lora_requests_info{{max_lora="{slots}",running_lora_adapters="{_escaped(running)}",'
            f'waiting_lora_adapters="{_escaped(waiting)}"}} {seen!r}'
            for (running, waiting), seen in self._seen.items()
        ]


def exposition(
    load: Load,
    totals: Totals,
    *,
    model: str,
    blocks: int,
    block_size: int,
    adapter_slots: int,
    adapter_sets: AdapterSets | None,
) -> bytes:
    """The answer of `/metrics`. `adapter_sets` is None on a pod without adapters, which has no such series."""
    labels = f'model_name="{_escaped(model)}",engine="0"'

    def plain(kind: str, name: str, text: str, value: float) -> list[str]:
        return [*_head(kind, name, text), f"{name}{{{labels}}} {value!r}"]

    def histogram(name: str, text: str, value: Histogram) -> list[str]:
        return [*_head("histogram", name, text), *value.lines(name, labels)]

    parts: list[Iterable[str]] = [
        plain("gauge", "vllm:num_requests_running", "Requests in the batch.", load.running),
        plain("gauge", "vllm:num_requests_waiting", "Requests that wait to run.", load.waiting),
        plain("gauge", "vllm:kv_cache_usage_perc", "Share of KV blocks in use, 1 is all.", load.kv_usage),
        _head("gauge", "vllm:cache_config_info", "Configuration of the KV cache."),
        [
            f'vllm:cache_config_info{{block_size="{block_size}",cache_dtype="auto",enable_prefix_caching="True",'
            f'num_gpu_blocks="{blocks}",engine="0"}} 1.0'
        ],
        plain("counter", "vllm:prefix_cache_queries_total", "Tokens looked up.", totals.cache_queries),
        plain("counter", "vllm:prefix_cache_hits_total", "Tokens found.", totals.cache_hits),
        plain("counter", "vllm:num_preemptions_total", "Preemptions.", totals.preemptions),
        plain("counter", "vllm:prompt_tokens_total", "Prompt tokens processed.", totals.prompt_tokens),
        plain("counter", "vllm:generation_tokens_total", "Tokens generated.", totals.generation_tokens),
        _head("counter", "vllm:request_success_total", "Requests ended."),
        [
            f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {count}'
            for reason, count in totals.ended.items()
        ],
        histogram("vllm:request_queue_time_seconds", "Time in the queue.", totals.queued),
        histogram("vllm:time_to_first_token_seconds", "Time to the first token.", totals.first_token),
        histogram("vllm:inter_token_latency_seconds", "Time between tokens.", totals.between_tokens),
        histogram("vllm:e2e_request_latency_seconds", "Time to the last token.", totals.end_to_end),
        histogram("vllm:request_prefill_time_seconds", "Time from running to the first token.", totals.prefill),
        histogram("vllm:request_decode_time_seconds", "Time from the first token to the last.", totals.decode),
        histogram("vllm:request_inference_time_seconds", "Time from running to the last token.", totals.inference),
        histogram("vllm:request_time_per_output_token_seconds", "Mean time between tokens.", totals.per_token),
        histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", totals.prompt_lengths),
        histogram("vllm:request_generation_tokens", "Tokens of an answer.", totals.answer_lengths),
    ]
    if adapter_sets is not None:
        parts.append(_head("gauge", "vllm:lora_requests_info", "Adapters of running and waiting requests."))
        parts.append(adapter_sets.lines(slots=adapter_slots))
    return ("\n".join(line for part in parts for line in part) + "\n").encode()


def _head(kind: str, name: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
