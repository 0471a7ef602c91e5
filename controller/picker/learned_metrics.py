"""Metrics of what was learned: the pools' rates, the prefix indexes, and how far they are right."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from controller.picker.chunks import BYTES_PER_TOKEN
from controller.picker.endpoints import Endpoint
from controller.picker.memory import PoolMemory
from controller.picker.pools import PoolTable
from controller.picker.usage import Usage

_RATES: Final[Mapping[str, tuple[str, Callable[[PoolMemory], float]]]] = {
    "seconds_per_token": ("Per prompt token that is not cached.", lambda memory: memory.rates.seconds_per_token),
    "first_byte_seconds": ("To the first byte without work.", lambda memory: memory.rates.first_byte),
    "residence_seconds": ("Mean from sending to the last byte.", lambda memory: memory.rates.residence),
    "adapter_load_seconds": ("To load a LoRA adapter.", lambda memory: memory.rates.adapter_load),
}
_TOKENS: Final[Mapping[str, tuple[str, Callable[[PoolMemory], float]]]] = {
    "prompt_tokens": ("Estimated tokens of prompts sent.", lambda memory: memory.predicted.prompt),
    "predicted_cached_tokens": (
        "Of them, those the index expected in a cache.",
        lambda memory: memory.predicted.cached,
    ),
    "compared_prompt_tokens": ("Tokens of prompts whose answers told.", lambda memory: memory.reported.prompt),
    "compared_predicted_cached_tokens": ("Of them, as expected.", lambda memory: memory.predicted_of_reported),
    "compared_reported_cached_tokens": ("Of them, as the answers told.", lambda memory: memory.reported.cached),
}
_USAGE: Final[Mapping[str, tuple[str, Callable[[Usage], float]]]] = {
    "model_answers": ("Answers that told their usage.", lambda usage: usage.answers),
    "model_prompt_tokens": ("Tokens of prompts, as answers told.", lambda usage: usage.prompt_tokens),
    "model_cached_tokens": ("Of them, those that were cached.", lambda usage: usage.cached_tokens),
    "model_completion_tokens": ("Tokens of answers, as they told.", lambda usage: usage.completion_tokens),
}
_OF_ENDPOINT: Final[Mapping[str, tuple[str, Callable[[Endpoint], float]]]] = {
    "backlog_tokens": ("Not cached, of requests without a first byte.", lambda one: one.backlog // BYTES_PER_TOKEN),
    "inflight_tokens": ("Estimated tokens of prompts in flight.", lambda one: one.tokens),
    "endpoint_slowness": ("Seconds per token, relative to the pool's.", lambda one: one.slowness),
    "prefix_indexer_size": ("Chunks of prompts in the index.", lambda one: len(one.prefixes)),
    "prefix_indexer_trust": (
        "Share of its KV cache that the index stands for, as answers bear it out; near 0 it is picked for by load.",
        lambda one: one.prefixes.trust,
    ),
    "endpoint_restarts": ("Restarts of the same pod that were seen.", lambda one: one.restarts),
}


def learned_metrics(table: PoolTable) -> Iterable[Metric]:
    """The families; labels come from the pools file, and models from what endpoints say they serve."""
    for name, (text, value) in _RATES.items():
        gauge = GaugeMetricFamily(f"infergate_learned_{name}", text, labels=("pool",))
        for pool in table.pools.values():
            gauge.add_metric((pool.name,), value(pool.memory))
        yield gauge
    for name, (text, value) in _TOKENS.items():
        counter = CounterMetricFamily(f"infergate_{name}", text, labels=("pool",))
        for pool in table.pools.values():
            counter.add_metric((pool.name,), value(pool.memory))
        yield counter
    for name, (text, told) in _USAGE.items():
        counter = CounterMetricFamily(f"infergate_{name}", text, labels=("pool", "model"))
        for pool in table.pools.values():
            for model, usage in sorted(pool.memory.usage.sums.items()):
                counter.add_metric((pool.name, model), told(usage))
        yield counter
    yield _rewritten(table)
    for name, (text, of_endpoint) in _OF_ENDPOINT.items():
        gauge = GaugeMetricFamily(f"infergate_{name}", text, labels=("pool", "endpoint_name", "model_server_endpoint"))
        for pool in table.pools.values():
            for endpoint in pool.endpoints:
                gauge.add_metric((pool.name, endpoint.name, endpoint.address), of_endpoint(endpoint))
        yield gauge


def _rewritten(table: PoolTable) -> Metric:
    """Requests by the model that they name, as far as a rewrite names it too, and the one that they were given."""
    counter = CounterMetricFamily(
        "infergate_rewritten_requests",
        "Requests that were given a model by a rewrite.",
        labels=("pool", "model", "target_model"),
    )
    for pool in table.pools.values():
        by_model: Counter[tuple[str, str]] = Counter()
        for (_, model, target), count in pool.memory.rewritten.counts.items():
            by_model[model, target] += count
        for (model, target), count in sorted(by_model.items()):
            counter.add_metric((pool.name, model, target), count)
    return counter
