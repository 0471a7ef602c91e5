"""The plugins that there are, by the type that a configuration names them by.

How a plugin works is the picker's matter. Here is what both the control plane, which judges configurations, and the
picker, which runs them, have to know.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from controller.plugins import parameters as p
from controller.plugins.types import ConfiguredPlugin, DetectorConfig


class Kind(StrEnum):
    """What a plugin is used for."""

    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"
    DETECTOR = "detector"
    FAIRNESS = "fairness"
    ORDERING = "ordering"
    LIMIT = "limit"
    NO_EFFECT = "accepted without effect"
    """What it stands for happens anyway."""


SCHEDULING_KINDS: Final = (Kind.FILTER, Kind.SCORER, Kind.PICKER)
"""Those that a profile consists of, and that third parties may add."""

Build = Callable[[Any, Any], object]
"""Makes the part of a profile from its parameters and the picker's surroundings.

Any: a model that only the plugin knows, and a class of the picker, which this package may not import.
"""


Model: TypeAlias = type[BaseModel]


@dataclass(frozen=True)
class Plugin:
    """One type of plugin."""

    type: str
    kinds: tuple[Kind, ...]
    """Several where one plugin is, say, both a filter and a scorer."""
    summary: str
    """One line."""
    parameters: Model = p.NoParameters
    aliases: tuple[str, ...] = ()
    """Types that mean the same."""
    build: Build | None = None
    """Of a third party's plugin; the picker itself knows how to make the others."""
    is_ours: bool = False
    """Whether an EndpointPickerConfig of the field does not know it."""

    def unused(self) -> frozenset[str]:
        """Parameters that are accepted and change nothing, as users write them."""
        return frozenset(
            item.alias or name
            for name, item in self.parameters.model_fields.items()
            if p.Mark.WITHOUT_EFFECT in item.metadata
        )


@dataclass(frozen=True)
class Catalogue:
    """Plugins by type, and what could not be loaded."""

    plugins: tuple[Plugin, ...]
    """In the order in which they are shown."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """By type, why a third party's plugin cannot be used."""

    @cached_property
    def by_name(self) -> Mapping[str, Plugin]:
        """By type and by alias."""
        names = {alias: plugin for plugin in self.plugins for alias in plugin.aliases}
        return names | {plugin.type: plugin for plugin in self.plugins}

    def types(self, *kinds: Kind) -> tuple[str, ...]:
        """Types of the plugins of any of these kinds, sorted; of all without `kinds`."""
        return tuple(
            sorted(item.type for item in self.plugins if not kinds or any(kind in kinds for kind in item.kinds))
        )


def parameters_of(configured: ConfiguredPlugin | DetectorConfig, *, catalogue: Catalogue) -> BaseModel:
    """The parameters of a plugin, with defaults, as its own model.

    Raises KeyError when the catalogue lacks the type, and ValueError when its model does not take the parameters: with
    another release of a third party's plugin here than in the control plane.
    """
    type_ = configured.type if isinstance(configured, ConfiguredPlugin) else configured.plugin_ref
    return catalogue.by_name[type_].parameters.model_validate(configured.parameters)


def arguments_of(parameters: BaseModel) -> dict[str, Any]:  # any: of the types of the model's fields
    """Parameters of a model of ours by their names in Python, defaults included, without those that change nothing."""
    return {
        name: getattr(parameters, name)
        for name, item in type(parameters).model_fields.items()
        if p.Mark.WITHOUT_EFFECT not in item.metadata and p.Mark.IMPLIED not in item.metadata
    }


_FILTER, _SCORER, _PICKER = (Kind.FILTER,), (Kind.SCORER,), (Kind.PICKER,)
_FAIRNESS, _ORDERING, _NOTHING = (Kind.FAIRNESS,), (Kind.ORDERING,), (Kind.NO_EFFECT,)
_DETECTOR = (Kind.DETECTOR, Kind.FILTER)

DEFAULT_FILTER: Final = "healthy-filter"
DEFAULT_SCORER: Final = "expected-time-scorer"
DEFAULT_PICKER: Final = "max-score-picker"
DEFAULT_DETECTOR: Final = "utilization-detector"
DEFAULT_LIMIT: Final = "static-usage-limit-policy"

BUILT_IN: Final = Catalogue(
    (
        Plugin(
            DEFAULT_SCORER,
            _SCORER,
            "Least time until the first token, plus the harm done to those who run there. The default.",
            p.ExpectedTime,
            is_ours=True,
        ),
        Plugin("queue-scorer", _SCORER, "Fewest waiting requests, as scraped."),
        Plugin("running-requests-size-scorer", _SCORER, "Fewest running requests, as scraped."),
        Plugin(
            "kv-cache-utilization-scorer",
            _SCORER,
            "Most free KV cache, as scraped.",
            aliases=("kv-cache-scorer",),
        ),
        Plugin("load-aware-scorer", _SCORER, "Waiting requests against a threshold.", p.LoadAware),
        Plugin("active-request-scorer", _SCORER, "Fewest requests in flight from here.", p.ActiveRequest),
        Plugin("token-load-scorer", _SCORER, "Fewest uncached tokens in flight, this request's included.", p.TokenLoad),
        Plugin("prefix-cache-scorer", _SCORER, "Largest share of the prompt that is cached.", p.PrefixCache),
        Plugin("no-hit-lru-scorer", _SCORER, "Prompts cached nowhere go where none went for longest.", p.NoHitLru),
        Plugin("lora-affinity-scorer", _SCORER, "Endpoints that have the LoRA adapter loaded, or have room for it."),
        Plugin("session-affinity-scorer", _SCORER, "The endpoint that served the session before.", p.SessionAffinity),
        Plugin("latency-scorer", _SCORER, "Least latency, as learned from completions.", p.Latency),
        Plugin(
            "context-length-aware",
            (Kind.SCORER, Kind.FILTER),
            "Endpoints that are labelled for prompts of this length; a filter as well where asked for.",
            p.ContextLength,
        ),
        Plugin(
            DEFAULT_FILTER,
            _FILTER,
            "Endpoints that do not fail and whose reading is fresh. First in every profile that does not name it.",
            is_ours=True,
        ),
        Plugin(
            "prefix-cache-affinity-filter",
            _FILTER,
            "Endpoints that have most of the prompt cached, as long as they are not too slow.",
            p.PrefixAffinity,
        ),
        Plugin("session-affinity-filter", _FILTER, "The endpoint that served the session before.", p.SessionAffinity),
        Plugin(
            "label-selector-filter",
            _FILTER,
            "Endpoints with these labels.",
            p.LabelSelector,
            aliases=("by-label-selector",),
        ),
        Plugin("utilization-filter", _FILTER, "Endpoints whose load is below limits.", p.UtilizationFilter),
        Plugin(DEFAULT_PICKER, _PICKER, "The highest score; ties at random. The default.", p.Picker),
        Plugin("weighted-random-picker", _PICKER, "At random, in proportion to the scores.", p.Picker),
        Plugin("random-picker", _PICKER, "At random.", p.Picker),
        Plugin(
            DEFAULT_DETECTOR,
            _DETECTOR,
            "A pool is as full as its queues and KV caches, as scraped. The default.",
            p.UtilizationDetector,
        ),
        Plugin(
            "concurrency-detector",
            _DETECTOR,
            "A pool is as full as the requests or tokens in flight.",
            p.ConcurrencyDetector,
        ),
        Plugin("round-robin-fairness-policy", _FAIRNESS, "One request of each tenant in turn. The default."),
        Plugin("global-strict-fairness-policy", _FAIRNESS, "The first of all requests, whoever sent it."),
        Plugin("fcfs-ordering-policy", _ORDERING, "First come, first served. The default."),
        Plugin("edf-ordering-policy", _ORDERING, "Who gives up first goes first."),
        Plugin("slo-deadline-ordering-policy", _ORDERING, "Whose wanted time to first token ends first goes first."),
        Plugin(
            DEFAULT_LIMIT,
            (Kind.LIMIT,),
            "Share of the pool's capacity that requests may use.",
            p.StaticLimit,
        ),
        *(
            Plugin(type_, _NOTHING, summary, p.AnyParameters, aliases=aliases)
            for type_, summary, aliases in (
                ("single-profile-handler", "There is one profile.", ()),
                ("metrics-data-source", "Model servers are scraped at `/metrics`.", ()),
                ("core-metrics-extractor", "Metrics of vLLM, SGLang and llama.cpp are understood.", ()),
                ("models-data-source", "Models are known from the model servers.", ()),
                ("models-data-extractor", "As above.", ()),
                ("approx-prefix-cache-producer", "Prefixes are remembered, up to the KV cache's size.", ()),
                ("inflight-load-producer", "Requests and tokens in flight are counted.", ()),
                ("token-producer", "Tokens are estimated from bytes.", ("tokenizer",)),
                ("openai-parser", "OpenAI's API is understood.", ()),
                ("anthropic-parser", "Anthropic's API is understood.", ()),
                ("vllmhttp-parser", "vLLM's API is understood.", ()),
                ("passthrough-parser", "Other requests pass unread.", ()),
            )
        ),
    )
)
"""What comes with Infergate."""
