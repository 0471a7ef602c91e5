"""Which metrics tell what, per model server program, and a reading from the text of one scrape.

A program is known by the prefix of its metric names. Only the few lines that are needed are parsed: the page of one
vLLM server can be 100 KB, and parsing it whole takes milliseconds of the loop that picks. An idle server says the same
over and over, and a busy one under the same labels: neither is parsed twice.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import msgspec

from controller.pools import Engine

# A hand-written parser: that of prometheus_client takes 140 us for six lines, this one 20.
_LINE: Final = re.compile(r"[\w:]+(?:\{(.*)\})?[ \t]+([^\s{}]+)(?:[ \t]+-?[\d.]+)?\s*")
_EXEMPLAR: Final = " # {"
"""Behind a value in OpenMetrics, which some programs write whatever they are asked for."""
_LABEL: Final = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_LONGEST_LABELS: Final = 1024
"""Characters of labels that are remembered."""
_Sample = tuple[Mapping[str, str], float]
_Lines = tuple[list[bytes], ...]
"""The lines of each metric that is read, in the order of their names."""
_LARGEST: Final = 1e300
"""More than anything counts to, and little enough to be summed."""
_STARTED_AT: Final = "process_start_time_seconds"


class Reading(msgspec.Struct, frozen=True, rename="camel"):
    """What one scrape told of a model server."""

    engine: Engine
    running: int = 0
    waiting: int = 0
    is_whole: bool = True
    """Whether both running and waiting were told; otherwise one of them is 0 for lack of a number."""
    kv_use: float | None = None
    """Share of the KV cache in use, the mean over the server's engines; None when the server does not say."""
    block_size: int | None = None
    """Tokens in one KV block."""
    blocks: int | None = None
    """KV blocks of all engines of the server."""
    running_adapters: tuple[str, ...] = ()
    waiting_adapters: tuple[str, ...] = ()
    max_adapters: int | None = None
    started_at: float | None = None
    """When its process started, on its own clock; None when it does not say."""
    prompt_tokens: float | None = None
    """Tokens of all prompts since it started; None as above."""
    generated_tokens: float | None = None
    """Tokens of all answers since it started, counted as they come; None where they are counted later or not at all."""


@dataclass(frozen=True)
class ModelServer:
    """The metrics of one program. Where several names are given, the first that is present counts."""

    engine: Engine
    prefix: str
    running: str
    waiting: str
    kv_use: tuple[str, ...]
    cache: str | None = None
    """An info metric whose labels tell the KV blocks."""
    block_size_label: str = ""
    blocks_label: str = ""
    adapters: str | None = None
    """An info metric whose labels tell the LoRA adapters and whose value is the time of the last change."""
    prompt_tokens: str = ""
    """A counter."""
    generated_tokens: str | None = None
    """A counter that moves with each token. SGLang and llama.cpp count when an answer ends, which is of no use."""
    repeating_labels: frozenset[str] = frozenset()
    """Labels of workers that repeat the numbers of one scheduler: their series are not summed."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every metric that is read."""
        optional = (self.cache, self.adapters, self.prompt_tokens, self.generated_tokens)
        return (self.running, self.waiting, *self.kv_use, *filter(None, optional), _STARTED_AT)

    @cached_property
    def marks(self) -> tuple[bytes, ...]:
        """What their lines begin with, after the end of the line before."""
        return tuple(f"\n{name}".encode() for name in self.names)

    @cached_property
    def mark(self) -> bytes:
        """What a page of the program has somewhere."""
        return f"\n{self.prefix}".encode()


MODEL_SERVERS: Final = (
    ModelServer(
        engine=Engine.VLLM,
        prefix="vllm:",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        # The second is the name before vLLM 0.10.
        kv_use=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        cache="vllm:cache_config_info",
        block_size_label="block_size",
        blocks_label="num_gpu_blocks",
        adapters="vllm:lora_requests_info",
        prompt_tokens="vllm:prompt_tokens_total",
        generated_tokens="vllm:generation_tokens_total",
    ),
    ModelServer(
        engine=Engine.SGLANG,
        prefix="sglang:",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_use=("sglang:token_usage",),
        cache="sglang:cache_config_info",
        block_size_label="page_size",
        blocks_label="num_pages",
        prompt_tokens="sglang:prompt_tokens_total",
        repeating_labels=frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "pid"}),
    ),
    ModelServer(
        engine=Engine.LLAMA_CPP,
        prefix="llamacpp:",
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        kv_use=("llamacpp:kv_cache_usage_ratio",),
        prompt_tokens="llamacpp:prompt_tokens_total",
    ),
)


class MetricsReader:
    """Reads the pages of one endpoint, and remembers what it read last."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._lines: _Lines = ()
        self._reading: Reading | None = None

    def read(self, text: bytes, engine: Engine | None) -> Reading | None:
        """A reading from the text of a metrics page, or None when no known program speaks there.

        With `engine` only that program's names are looked for. Raises ValueError when a needed line is malformed.
        """
        text = b"\n" + text
        for server in MODEL_SERVERS:
            if engine in (None, server.engine) and server.mark in text:
                lines = _lines(text, server.marks)
                if self._engine is not server.engine or self._lines != lines:
                    self._reading = _reading(server, _samples(server, lines))
                    self._engine, self._lines = server.engine, lines
                if self._reading is not None:
                    return self._reading
        return None


def _lines(text: bytes, marks: Iterable[bytes]) -> _Lines:
    # Searching for each name takes 16 us in 100 KB; splitting into lines and looking at each takes 250.
    found: _Lines = tuple([] for _ in marks)
    for mark, lines in zip(marks, found, strict=True):
        start = text.find(mark)
        while start >= 0:
            end = text.find(b"\n", start + 1)
            line = text[start + 1 : end if end >= 0 else None]
            if line[len(mark) - 1 : len(mark)] in (b"{", b" ", b"\t"):
                lines.append(line)
            start = text.find(mark, start + 1)
    return found


def _samples(server: ModelServer, lines: _Lines) -> Mapping[str, list[_Sample]]:
    """The samples of some metrics, by name; not-a-number is left out."""
    found: dict[str, list[_Sample]] = {}
    for name, some in zip(server.names, lines, strict=True):
        samples = [_sample(line.decode("utf-8", "replace")) for line in some]
        found[name] = [sample for sample in samples if not math.isnan(sample[1])]
    return found


def _sample(line: str) -> _Sample:
    """Labels and value of a line of Prometheus' text format. Raises ValueError when it is malformed."""
    parts = _LINE.fullmatch(line.rpartition(_EXEMPLAR)[0]) if _EXEMPLAR in line else None
    parts = parts or _LINE.fullmatch(line)
    if parts is None:
        raise ValueError(f"malformed sample: {line[:100]}")
    text = parts[1] or ""
    labels = (_labels if len(text) <= _LONGEST_LABELS else _labels.__wrapped__)(text)
    # A page is not trusted: the sum of what is cut here does not overflow.
    return labels, min(max(float(parts[2]), -_LARGEST), _LARGEST)


@lru_cache(1024)
def _labels(text: str) -> Mapping[str, str]:
    return {name: _ESCAPED.sub(_unescape, value) for name, value in _LABEL.findall(text)}


def _unescape(escaped: re.Match[str]) -> str:
    return "\n" if escaped[1] == "n" else escaped[1]


def _reading(server: ModelServer, samples: Mapping[str, list[_Sample]]) -> Reading | None:
    """None where neither running nor waiting requests are told."""
    if not samples[server.running] and not samples[server.waiting]:
        return None
    kv_use = next((_per_scheduler(samples[name], server) for name in server.kv_use if samples[name]), None)
    block_size = blocks = None
    if server.cache and samples[server.cache]:
        block_size = _count(samples[server.cache][0][0].get(server.block_size_label))
        sizes = (_count(labels.get(server.blocks_label)) or 0 for labels in _schedulers(samples[server.cache], server))
        blocks = sum(sizes) or None
    running_adapters: tuple[str, ...] = ()
    waiting_adapters: tuple[str, ...] = ()
    max_adapters = None
    if server.adapters and samples[server.adapters]:
        # Old series stay on the page; the value is the time of the last change.
        labels = max(samples[server.adapters], key=lambda sample: sample[1])[0]
        running_adapters = _adapters(labels.get("running_lora_adapters", ""))
        waiting_adapters = _adapters(labels.get("waiting_lora_adapters", ""))
        max_adapters = _count(labels.get("max_lora"))
    counted = samples.get(server.prompt_tokens, [])
    generated = samples[server.generated_tokens] if server.generated_tokens else []
    return Reading(
        engine=server.engine,
        running=_total(_per_scheduler(samples[server.running], server)),
        waiting=_total(_per_scheduler(samples[server.waiting], server)),
        is_whole=bool(samples[server.running] and samples[server.waiting]),
        kv_use=min(max(math.fsum(kv_use) / len(kv_use), 0.0), 1.0) if kv_use else None,
        block_size=block_size,
        blocks=blocks,
        running_adapters=running_adapters,
        waiting_adapters=waiting_adapters,
        max_adapters=max_adapters,
        started_at=max((value for _, value in samples[_STARTED_AT]), default=None),
        prompt_tokens=math.fsum(_per_scheduler(counted, server)) if counted else None,
        generated_tokens=math.fsum(_per_scheduler(generated, server)) if generated else None,
    )


def _schedulers(samples: Iterable[_Sample], server: ModelServer) -> Iterable[Mapping[str, str]]:
    """The labels of an info metric, once for each scheduler of a data-parallel server."""
    return {
        frozenset(item for item in labels.items() if item[0] not in server.repeating_labels): labels
        for labels, _ in samples
    }.values()


def _per_scheduler(samples: Iterable[_Sample], server: ModelServer) -> list[float]:
    """One value for each scheduler of a data-parallel server; of workers that repeat one, the greatest."""
    values: dict[frozenset[tuple[str, str]], float] = {}
    for labels, value in samples:
        scheduler = frozenset(item for item in labels.items() if item[0] not in server.repeating_labels)
        values[scheduler] = max(values.get(scheduler, -math.inf), value)
    return list(values.values())


def _total(values: Iterable[float]) -> int:
    # A page is not trusted: a count beyond any server's is cut, so that it cannot overflow a score.
    return int(min(max(math.fsum(values), 0.0), 1e9))


def _count(label: str | None) -> int | None:
    """A positive whole number from a label; None when it holds none (`None` and `0` are seen)."""
    return int(label) if label is not None and label.isascii() and label.isdigit() and 0 < int(label) < 10**12 else None


def _adapters(label: str) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in label.split(",")} - {""}))
