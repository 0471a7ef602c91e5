"""The plugins that a profile can be built from, by the names under which the field knows them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from controller.picker.scheduling.context_length import ContextLengthAware
from controller.picker.scheduling.filters.detectors import ConcurrencyDetectorFilter, UtilizationDetectorFilter
from controller.picker.scheduling.filters.healthy import HealthyFilter
from controller.picker.scheduling.filters.labels import LabelSelectorFilter
from controller.picker.scheduling.filters.prefix_affinity import PrefixCacheAffinityFilter
from controller.picker.scheduling.filters.utilization import UtilizationFilter
from controller.picker.scheduling.pickers.by_score import MaxScorePicker, RandomPicker, WeightedRandomPicker
from controller.picker.scheduling.scorers.adapters import LoraAffinityScorer
from controller.picker.scheduling.scorers.counted import ActiveRequestScorer, TokenLoadScorer
from controller.picker.scheduling.scorers.expected_time import ExpectedTimeScorer
from controller.picker.scheduling.scorers.latency import LatencyScorer
from controller.picker.scheduling.scorers.prefixes import NoHitLruScorer, PrefixCacheScorer
from controller.picker.scheduling.scorers.readings import (
    KvCacheUtilizationScorer,
    LoadAwareScorer,
    QueueScorer,
    RunningRequestsSizeScorer,
)
from controller.picker.scheduling.sessions import SessionAffinityFilter, SessionAffinityScorer


class Kind(StrEnum):
    """What a plugin can do; one plugin may do several things."""

    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"


_METHODS: Final = {Kind.FILTER: "filter", Kind.SCORER: "score", Kind.PICKER: "pick"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a plugin."""

    name: str
    """In snake case; the field's name in camel case is the same word for word."""
    type: str
    """As annotated, for example `int` or `tuple[str, ...]`."""
    default: Any  # Any: of the parameter's type; `inspect.Parameter.empty` where there must be a value


@dataclass(frozen=True)
class PluginType:
    """A plugin that profiles may name."""

    name: str
    make: Callable[..., Any]  # Any: a filter, scorer, picker or several of them
    """The class: called with the surroundings and the parameters as keyword arguments."""

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """What it can do."""
        return frozenset(kind for kind, method in _METHODS.items() if hasattr(self.make, method))

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, in the order of the class."""
        # Annotations of compiled modules are text until they are evaluated.
        listed = list(inspect.signature(self.make, eval_str=True).parameters.values())[1:]
        return tuple(Parameter(one.name, inspect.formatannotation(one.annotation), one.default) for one in listed)


PLUGINS: Final[Mapping[str, PluginType]] = {
    name: PluginType(name, make)
    for name, make in {
        "active-request-scorer": ActiveRequestScorer,
        "concurrency-detector": ConcurrencyDetectorFilter,
        "context-length-aware": ContextLengthAware,
        "expected-time-scorer": ExpectedTimeScorer,
        "healthy-filter": HealthyFilter,
        "kv-cache-utilization-scorer": KvCacheUtilizationScorer,
        "label-selector-filter": LabelSelectorFilter,
        "latency-scorer": LatencyScorer,
        "load-aware-scorer": LoadAwareScorer,
        "lora-affinity-scorer": LoraAffinityScorer,
        "max-score-picker": MaxScorePicker,
        "no-hit-lru-scorer": NoHitLruScorer,
        "prefix-cache-affinity-filter": PrefixCacheAffinityFilter,
        "prefix-cache-scorer": PrefixCacheScorer,
        "queue-scorer": QueueScorer,
        "random-picker": RandomPicker,
        "running-requests-size-scorer": RunningRequestsSizeScorer,
        "session-affinity-filter": SessionAffinityFilter,
        "session-affinity-scorer": SessionAffinityScorer,
        "token-load-scorer": TokenLoadScorer,
        "utilization-detector": UtilizationDetectorFilter,
        "utilization-filter": UtilizationFilter,
        "weighted-random-picker": WeightedRandomPicker,
    }.items()
}
