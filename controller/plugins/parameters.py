"""Parameters of the plugins, in camelCase as an EndpointPickerConfig has them.

Names of producers (`…ProducerName`) are accepted and mean nothing: there is one of each, and all plugins use it. Other
fields without effect are `Unused`.
"""

from enum import Enum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controller.headers import SESSION_TOKEN_HEADER
from controller.plugins.problems import Broken, quoted
from controller.plugins.scalars import Duration, Flag, Number, Positive, Share, Text, Whole, seconds


class Mark(Enum):
    """What is said of a field beside its type."""

    WITHOUT_EFFECT = "asks for something that is not done"
    IMPLIED = "asks for what is done anyway"
    UNTUNED = "needs no tuning, so it is not shown"


Unused = Annotated[object, Mark.WITHOUT_EFFECT]
ProducerName = Annotated[str, Field(strict=True, max_length=253), Mark.IMPLIED]


class Parameters(BaseModel):
    """Base of all: frozen, camelCase outside, and an unknown parameter is an error."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid", arbitrary_types_allowed=True)


class NoParameters(Parameters):
    """A plugin that has none."""


class AnyParameters(Parameters):
    """A plugin without effect: whatever it has is accepted."""

    model_config = ConfigDict(extra="allow")


class LoadAware(Parameters):
    threshold: Positive = 128
    """Waiting requests from which on an endpoint scores 0."""


class ActiveRequest(Parameters):
    idle_threshold: Whole = 0
    """Requests in flight up to which an endpoint scores 1."""
    max_busy_score: Share = 1.0
    """Score that an endpoint above the threshold comes close to."""
    request_timeout: Unused = None
    in_flight_load_producer_name: ProducerName = ""


class TokenLoad(Parameters):
    queue_threshold_tokens: Positive = 4_194_304
    """Uncached tokens in flight from which on an endpoint scores 0."""
    in_flight_load_producer_name: ProducerName = ""


class PrefixCache(Parameters):
    match_length_weight: Share = 0.0
    """Part of the score that comes from the length of the match instead of its share of the prompt."""
    match_length_scale_tokens: Positive = 8192
    """Length of a match, in tokens, that counts in full."""
    prefix_match_info_producer_name: ProducerName = ""
    auto_tune: Unused = None
    block_size: Unused = None
    block_size_tokens: Unused = None
    hash_block_size: Unused = None
    lru_capacity_per_server: Unused = None
    max_prefix_blocks_to_match: Unused = None
    max_prefix_tokens_to_match: Unused = None


class PrefixAffinity(Parameters):
    affinity_threshold: Share = 0.8
    """Share of the prompt that an endpoint must have to count as warm; 0 keeps all."""
    exploration_probability: Share = 0.0
    """Share of requests for which the filter keeps all."""
    max_ttft_penalty_ms: Number = Field(default=18_000.0, alias="maxTTFTPenaltyMs")
    """Milliseconds by which the best warm endpoint may be slower than the best cold one; 0: however slow."""
    ttft_source: Literal["prefillThroughput", "latencyPredictor"] = Field(
        default="prefillThroughput", alias="ttftSource"
    )
    """Expected time to first token: from tokens in flight and the throughput below, or as learned from completions."""
    peak_prefill_throughput: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 15_928.0
    """Tokens a second."""
    prefix_match_info_producer_name: ProducerName = ""
    latency_prediction_info_producer_name: ProducerName = ""
    in_flight_load_producer_name: ProducerName = ""


class NoHitLru(Parameters):
    lru_size: Positive = 1024
    """Endpoints that are remembered."""
    prefix_match_info_producer_name: ProducerName = ""
    prefix_plugin_type: ProducerName = ""
    prefix_plugin_name: ProducerName = ""


def _is_session_token(value: str) -> str:
    # nginx cannot add a header whose name it does not know beforehand.
    if value.strip().lower() != SESSION_TOKEN_HEADER:
        raise Broken(f"found {quoted(value)}, accepted is {quoted(SESSION_TOKEN_HEADER)}")
    return value


class EncodedEndpointHeader(Parameters):
    header: Annotated[Text, AfterValidator(_is_session_token)] = SESSION_TOKEN_HEADER
    """Written into answers, and read from requests."""


class SessionSource(Parameters):
    """A place where the id of a session is read."""

    header: Text | None = None
    cookie: Text | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise Broken("accepted is either a header or a cookie")
        return self


class SessionId(Parameters):
    sources: Annotated[tuple[SessionSource, ...], Field(max_length=16)] = (SessionSource(header="x-session-id"),)
    """The first that a request has counts."""
    eviction_ttl_seconds: Annotated[float, Field(strict=True, gt=0, le=86_400)] = 300.0
    """Seconds after its last request at which a session is forgotten."""
    eviction_sweep_seconds: Annotated[float, Field(strict=True, gt=0, le=86_400)] = 10.0


class SessionAffinity(Parameters):
    strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header"
    """The endpoint comes back in a header, or the picker remembers it for an id."""
    encoded_endpoint_header_config: EncodedEndpointHeader = EncodedEndpointHeader()
    session_id_config: SessionId = SessionId()
    profile_name: ProducerName = ""


class ContextLength(Parameters):
    label: Text = "llm-d.ai/context-length-range"
    """Label of a pod with the tokens it is meant for, as `MIN-MAX`."""
    enable_filtering: Flag = False
    """Whether endpoints out of range are left out, instead of only scored low."""


class LabelRequirement(Parameters):
    key: Text
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Annotated[str, Field(strict=True, max_length=63)], ...] = ()

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        needs = self.operator in ("In", "NotIn")
        if needs != bool(self.values):
            raise Broken(f"accepted with {self.operator} is {'at least one value' if needs else 'no value'}", "values")
        return self


class LabelSelector(Parameters):
    match_labels: dict[Text, Annotated[str, Field(strict=True, max_length=63)]] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()


class UtilizationCondition(Parameters):
    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
    max_value: Number


class UtilizationFilter(Parameters):
    conditions: Annotated[tuple[UtilizationCondition, ...], Field(min_length=1, max_length=16)]
    """All must hold."""
    fallback_on_empty: Flag = False
    """Whether all endpoints are kept when none fulfils the conditions."""
    in_flight_load_producer_name: ProducerName = ""


class Latency(Parameters):
    ttft_weight: Number = Field(default=0.8, alias="ttftWeight")
    tpot_weight: Number = Field(default=0.2, alias="tpotWeight")
    headroom_selection_strategy: Literal["least", "most"] = "least"
    """Whether the endpoint that just meets the request's objective is best, or the fastest."""
    composite_kv_weight: Number = Field(default=1.0, alias="compositeKVWeight")
    """While nothing is learned, free KV cache, short queue and cached prefix count by these weights."""
    composite_queue_weight: Number = 1.0
    composite_prefix_weight: Number = 1.0
    latency_prediction_info_producer_name: ProducerName = ""
    prefix_match_info_producer_name: ProducerName = ""


class ExpectedTime(Parameters):
    harm: Annotated[Share, Mark.UNTUNED] = 0.3
    """Share by which each request in flight makes uncached tokens dearer; from .1 to .45 makes little difference."""


class Picker(Parameters):
    max_num_of_endpoints: Annotated[int, Field(strict=True, ge=1, le=3)] = 1
    """Endpoints of an answer: the choice and its fallbacks."""


class UtilizationDetector(Parameters):
    queue_depth_threshold: Positive = 5
    """Waiting requests with which an endpoint is full."""
    kv_cache_util_threshold: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.8
    """Share of the KV cache with which an endpoint is full."""
    metrics_staleness_threshold: Duration = "3s"
    """Age from which on a reading counts as full."""
    headroom: Number = 0.0
    """Share by which both thresholds are raised where the detector is used as a filter."""

    @model_validator(mode="after")
    def _staleness_in_range(self) -> Self:
        if not 0 < seconds(self.metrics_staleness_threshold) <= 600:
            raise Broken("accepted is a duration above 0s and up to 10m", "metricsStalenessThreshold")
        return self


class ConcurrencyDetector(Parameters):
    max_concurrency: Positive = 100
    """Requests in flight with which an endpoint is full."""
    max_token_concurrency: Positive = 1_000_000
    """Tokens in flight with which an endpoint is full."""
    headroom: Number = 0.0
    """As for the utilization-detector."""
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"
    in_flight_load_producer_name: ProducerName = ""


class StaticLimit(Parameters):
    threshold: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """Share of the pool's capacity up to which requests are served."""
