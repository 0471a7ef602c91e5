"""What is configured, in the shape of `flowControl` in an EndpointPickerConfig, and what a pool adds to it.

The reference, here and beside, is the endpoint picker that this file format comes from. Every queue and every wait has
a bound by default; where ours differ, the field says so.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from controller.picker.flow_control.quantities import ByteCount, Duration

LONGEST_WAIT: Final = 80.0
"""Seconds; NGINX waits 90 for the answer to a pick, and takes a longer wait for a dead picker."""
MOST_BANDS: Final = 32
"""Bands that can be configured, and as many again that come up on demand; both are walked on every release."""
_INT32: Final = 2**31

Priority = Annotated[int, Field(ge=-_INT32, lt=_INT32)]
"""Greater is more important; below 0 is sheddable. Source: InferenceObjective, spec.priority."""


class Fairness(StrEnum):
    """Whose turn it is in a band."""

    ROUND_ROBIN = "round-robin-fairness-policy"
    """One request of each tenant in turn."""
    GLOBAL_STRICT = "global-strict-fairness-policy"
    """The first of all, whoever sent it."""


class Ordering(StrEnum):
    """Which request of a tenant goes first; under `GLOBAL_STRICT`, which of the band."""

    FCFS = "fcfs-ordering-policy"
    EDF = "edf-ordering-policy"
    """By arrival and TTL: who gives up first goes first."""
    SLO_DEADLINE = "slo-deadline-ordering-policy"
    """By arrival and the time to first token that was asked for; those without one last, in order of arrival."""


class TenantBy(StrEnum):
    """What tells tenants apart where no fairness id counts."""

    CREDENTIAL = "credential"
    """The Authorization or x-api-key header, else the address. For gateways that check credentials."""
    ADDRESS = "address"
    """The client's address: whoever invents credentials gains nothing."""


class _Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class UtilizationParameters(_Settings):
    """Of the `utilization-detector`."""

    queue_depth_threshold: int = Field(default=5, ge=1)
    """Requests waiting at an endpoint from which on it is full."""
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, le=1)
    metrics_staleness_threshold: Duration = Field(default=3.0, gt=0, le=600)
    """Seconds. The reference has .2, for scrapes every .05; here scrapes come every second."""
    headroom: float = Field(default=0.0, ge=0)
    """Share by which the thresholds are raised when the detector filters endpoints."""


class ConcurrencyMode(StrEnum):
    """What the `concurrency-detector` counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    HYBRID = "hybrid"
    """Both: an endpoint is full when either is."""


class ConcurrencyParameters(_Settings):
    """Of the `concurrency-detector`."""

    max_concurrency: int = Field(default=100, ge=1)
    """Requests in flight to one endpoint."""
    max_token_concurrency: int = Field(default=1_000_000, ge=1)
    """Estimated tokens in flight to one endpoint."""
    headroom: float = Field(default=0.0, ge=0)
    """As above."""
    concurrency_mode: ConcurrencyMode = ConcurrencyMode.REQUESTS


class UtilizationDetectorRef(_Settings):
    """Capacity from the readings of the model servers."""

    plugin_ref: Literal["utilization-detector"] = "utilization-detector"
    parameters: UtilizationParameters = UtilizationParameters()


class ConcurrencyDetectorRef(_Settings):
    """Capacity from the picker's own counts."""

    plugin_ref: Literal["concurrency-detector"] = "concurrency-detector"
    parameters: ConcurrencyParameters = ConcurrencyParameters()


DetectorRef = Annotated[UtilizationDetectorRef | ConcurrencyDetectorRef, Field(discriminator="plugin_ref")]


class BandSettings(_Settings):
    """One priority band."""

    max_bytes: ByteCount = Field(default=1_000_000_000, ge=1)
    """Sum of the bodies of waiting requests."""
    max_requests: int = Field(default=5000, ge=1, le=100_000)
    fairness_policy_ref: Fairness = Fairness.ROUND_ROBIN
    """The reference has `global-strict-fairness-policy`, which is not fair between tenants."""
    ordering_policy_ref: Ordering = Ordering.FCFS
    usage_ceiling: float = Field(default=1.0, gt=0, le=1)
    """Share of the pool's capacity up to which the band is served; the rest is held back for others."""


class PriorityBand(BandSettings):
    """A band of its own settings. What it leaves out is as in the default band."""

    priority: Priority


class FlowControlSettings(_Settings):
    """Bounds and policies of the queues of one pool."""

    max_bytes: ByteCount = Field(default=1_000_000_000, ge=0)
    """Of all bands together; 0: only the bounds of the bands count. The reference's default is 0."""
    max_requests: int = Field(default=5000, ge=0, le=100_000)
    """Of all bands together; as above."""
    default_request_ttl: Duration = Field(default=60.0, ge=0, le=LONGEST_WAIT, alias="defaultRequestTTL")
    """Seconds a request waits for capacity; 0: as long as NGINX waits, `LONGEST_WAIT`."""
    no_endpoint_request_ttl: Duration | None = Field(default=None, ge=0, le=LONGEST_WAIT, alias="noEndpointRequestTTL")
    """Seconds a request waits for an endpoint; None: as `default_request_ttl`; 0: `LONGEST_WAIT`."""
    default_priority_band: BandSettings = BandSettings()
    default_negative_priority_band: BandSettings = BandSettings()
    priority_bands: tuple[PriorityBand, ...] = Field(default=(), max_length=MOST_BANDS)
    saturation_detector: DetectorRef = UtilizationDetectorRef()
    enable_eviction: Literal[False] = False
    """Requests at a model server are not taken back."""

    @property
    def ttl(self) -> float:
        """Seconds a request waits for capacity."""
        return self.default_request_ttl or LONGEST_WAIT

    @property
    def no_endpoint_ttl(self) -> float:
        """Seconds a request waits for an endpoint."""
        return self.ttl if self.no_endpoint_request_ttl is None else self.no_endpoint_request_ttl or LONGEST_WAIT

    def band(self, priority: int) -> BandSettings:
        """The settings of a band, whether it is configured or comes up on demand."""
        default = self.default_priority_band if priority >= 0 else self.default_negative_priority_band
        for band in self.priority_bands:
            if band.priority == priority:
                return default.model_copy(
                    update={name: getattr(band, name) for name in band.model_fields_set if name != "priority"}
                )
        return default

    @field_validator("saturation_detector", mode="before")
    @classmethod
    def _default_detector(cls, value: object) -> object:
        if isinstance(value, Mapping) and "pluginRef" not in value and "plugin_ref" not in value:
            return {**value, "pluginRef": "utilization-detector"}
        return value

    @model_validator(mode="after")
    def _one_band_per_priority(self) -> Self:
        priorities = [band.priority for band in self.priority_bands]
        twice = sorted({priority for priority in priorities if priorities.count(priority) > 1})
        if twice:
            raise ValueError(f"priorityBands: priority {twice[0]} is listed more than once")
        return self


class PoolPolicy(_Settings):
    """Everything the flow control knows of one pool."""

    flow_control: FlowControlSettings = FlowControlSettings()
    objectives: Mapping[str, Priority] = {}
    """Priorities of the InferenceObjectives of this pool, by name."""
    models: Mapping[str, Priority] = {}
    """Priorities of models, by the name that clients use."""
    default_priority: Priority = 0
    """Of requests without an objective of this pool, for a model without a priority."""
    trust_fairness_id: bool = False
    """Whether the client's fairness id header counts."""
    trust_deadline: bool = False
    """Whether the client's header with the time to first token it wants counts."""
    tenant_by: TenantBy = TenantBy.CREDENTIAL
