"""The shape of an EndpointPickerConfig, as users write it and as the CRD describes it.

Fields that this gateway has no use for and that say what happens anyway are read; others are unknown fields. What names
and parameters mean is judged in `parse`.

Source: llm-d-router, apix/config/v1alpha1.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from controller.plugins.problems import Broken
from controller.plugins.scalars import Duration, Flag, Number, Priority, Quantity, Share, Text


def _unique_priorities(bands: "tuple[PriorityBand, ...]") -> "tuple[PriorityBand, ...]":
    seen: dict[int, int] = {}
    for index, band in enumerate(bands):
        if seen.setdefault(band.priority, index) != index:
            raise Broken(f"found {band.priority}, which item {seen[band.priority]} has too", index, "priority")
    return bands


class Shape(BaseModel):
    """Base of all: frozen, camelCase outside, and an unknown field is an error."""

    model_config = ConfigDict(
        alias_generator=to_camel, frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True
    )


class Reference(Shape):
    """Names a plugin of this configuration."""

    plugin_ref: Text
    """Name of a plugin."""


class PluginSpec(Shape):
    """One plugin of the configuration."""

    type: Text
    """Type of the plugin. docs/picker-policy.md lists those that there are."""
    name: Text | None = None
    """By which the configuration refers to it; the type by default."""
    parameters: dict[str, Any] | None = None  # any: judged by the plugin's own model
    """Parameters of the type."""


class ProfilePlugin(Reference):
    """A plugin of a profile."""

    weight: Number | None = None
    """Of a scorer; 1 by default."""


class Profile(Shape):
    """Filters narrow the endpoints, weighted scorers rate them, a picker chooses."""

    name: Text
    """Any name."""
    plugins: Annotated[tuple[ProfilePlugin, ...], Field(max_length=64)] = ()
    """Filters run in this order. Without a picker it is the max-score-picker, without a scorer the
    expected-time-scorer."""


class Detector(Shape):
    """What tells whether the pool is saturated."""

    plugin_ref: Text | None = None
    """Name of a detector; utilization-detector by default."""


class OldDetector(Detector):
    """The detector as earlier versions have it, with its parameters in place."""

    queue_depth_threshold: Annotated[int, Field(strict=True, ge=1, lt=2**31)] | None = None
    """As of the utilization-detector."""
    kv_cache_util_threshold: Share | None = None
    """As of the utilization-detector."""
    metrics_staleness_threshold: Duration | None = None
    """As of the utilization-detector."""


class Band(Shape):
    """Bounds and policies of the requests of one priority that wait."""

    max_bytes: Quantity | None = None
    """Sum of their bodies."""
    max_requests: Quantity | None = None
    """Their number."""
    fairness_policy_ref: Text | None = None
    """Name or type of a fairness policy."""
    ordering_policy_ref: Text | None = None
    """Name or type of an ordering policy."""
    usage_ceiling: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    """Share of the pool's capacity up to which the band is served; the rest is held back for others. Infergate's own
    field."""


class PriorityBand(Band):
    """A band of its own settings; what it leaves out is as in the default band."""

    priority: Priority
    """Priority of its requests."""


class FlowControl(Shape):
    """Where requests wait while the pool is saturated."""

    max_bytes: Quantity | None = None
    """Of all bands together; 0 leaves it to the bands."""
    max_requests: Quantity | None = None
    """Of all bands together; 0 leaves it to the bands."""
    default_request_ttl: Duration | None = Field(default=None, alias="defaultRequestTTL")
    """How long a request waits for capacity, up to 80s; 0s is as long as possible."""
    no_endpoint_request_ttl: Duration | None = Field(default=None, alias="noEndpointRequestTTL")
    """How long a request waits for an endpoint while the pool has none, up to 80s; as above by default."""
    default_priority_band: Band | None = None
    """Of priorities of 0 and above without a band of their own."""
    default_negative_priority_band: Band | None = None
    """Of priorities below 0 without a band of their own."""
    priority_bands: Annotated[
        tuple[PriorityBand, ...],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["priority"]},
        ),
        AfterValidator(_unique_priorities),
    ] = ()
    """Bands of single priorities."""
    usage_limit_policy_plugin_ref: Text | None = None
    """Name or type of a limit policy; its limit is the usageCeiling of the default bands."""
    saturation_detector: Detector | None = None
    """What tells whether the pool is saturated."""
    enable_eviction: Flag | None = None
    """Only false: a request that a model server has is not taken back."""


class Source(Reference):
    """A source of data, which is read anyway."""

    extractors: Annotated[tuple[Reference, ...], Field(max_length=16)] = ()
    """What is read from it anyway."""


class DataLayer(Shape):
    """Accepted, and without effect: model servers are scraped anyway."""

    inject_defaults: Flag | None = None
    """Without effect."""
    sources: Annotated[tuple[Source, ...], Field(max_length=16)] = ()
    """Without effect."""


class RequestHandler(Shape):
    """Accepted, and without effect: all APIs that are known are understood."""

    parsers: Annotated[tuple[Reference, ...], Field(max_length=16)] = ()
    """Without effect."""


class EndpointPickerConfig(Shape):
    """How an endpoint is chosen and who waits, in the shape of an EndpointPickerConfig, which may be pasted here."""

    api_version: Literal["llm-d.ai/v1", "llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"] | None = None
    """Accepted as it stands in a file, and without effect."""
    kind: Literal["EndpointPickerConfig"] | None = None
    """Accepted as it stands in a file, and without effect."""
    feature_gates: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Accepted where they ask for what is done anyway, such as flowControl."""
    plugins: Annotated[tuple[PluginSpec, ...], Field(max_length=64)] = ()
    """Plugins with their parameters."""
    scheduling_profiles: Annotated[tuple[Profile, ...], Field(max_length=8)] = ()
    """The one profile; without it, one of all filters, scorers and pickers among the plugins."""
    flow_control: FlowControl | None = None
    """Where requests wait while the pool is saturated."""
    saturation_detector: OldDetector | None = None
    """Former place of flowControl.saturationDetector."""
    data_layer: DataLayer | None = None
    """Without effect."""
    request_handler: RequestHandler | None = None
    """Without effect."""
    parser: Reference | None = None
    """Former place of requestHandler.parsers; without effect."""
