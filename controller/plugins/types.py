"""What a PickerPolicy says, resolved: every reference is a type, every default that needs another field is filled in.

These are the values that the control plane writes into the pools file and that the picker reads there. A field that has
the very object of its default is left out of the file.
"""

from typing import Any

import msgspec


class ConfiguredPlugin(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One plugin of a scheduling profile."""

    type: str
    """Of the catalogue, never an alias."""
    name: str
    """Unique in a configuration; the type where the user gave none."""
    parameters: dict[str, Any] = {}  # any: JSON as the user wrote it, which the plugin's model has accepted
    """Only those that the user set."""
    weight: float = 1.0
    """Of a scorer; at least 0."""


class Scheduling(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How an endpoint is chosen."""

    filters: tuple[ConfiguredPlugin, ...]
    """In the order in which they run; among them `healthy-filter`."""
    scorers: tuple[ConfiguredPlugin, ...]
    """None only where the picker looks at no scores."""
    picker: ConfiguredPlugin


class DetectorConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What tells whether a pool is saturated."""

    plugin_ref: str
    """Type of the detector."""
    parameters: dict[str, Any] = {}  # as above


class BandConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the user set for a priority band. None: as in the default band, and there as the picker's default."""

    max_bytes: int | None = None
    max_requests: int | None = None
    fairness_policy_ref: str | None = None
    """Type of the policy."""
    ordering_policy_ref: str | None = None
    """As above."""
    usage_ceiling: float | None = None
    """Share of the pool's capacity, in (0, 1]."""


class PriorityBandConfig(BandConfig, frozen=True, omit_defaults=True, rename="camel", kw_only=True):
    """The band of one priority."""

    priority: int


class FlowControlConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the user set of the queues. None: the picker's default."""

    max_bytes: int | None = None
    max_requests: int | None = None
    default_request_ttl: float | None = msgspec.field(default=None, name="defaultRequestTTL")
    """Seconds."""
    no_endpoint_request_ttl: float | None = msgspec.field(default=None, name="noEndpointRequestTTL")
    """Seconds."""
    default_priority_band: BandConfig | None = None
    default_negative_priority_band: BandConfig | None = None
    priority_bands: tuple[PriorityBandConfig, ...] = ()
    """Sorted, the highest first."""
    saturation_detector: DetectorConfig | None = None


DEFAULT_FLOW_CONTROL = FlowControlConfig()


class Admission(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Who waits for how long, and before whom."""

    flow_control: FlowControlConfig = DEFAULT_FLOW_CONTROL
    objectives: dict[str, int] = {}
    """Priorities of the pool's InferenceObjectives by name, as a client may claim them: limited, and none where the
    policy lets clients claim none. Sorted by name."""
    models: dict[str, int] = {}
    """Priorities of models by the name that clients use, for requests without one of these objectives. Sorted."""
    default_priority: int = 0
    """Of requests with neither."""
    trust_fairness_id: bool = False
    trust_deadline: bool = False
    tenant_by: str = "credential"
    """What tells tenants apart where no fairness id counts: `credential` or `address`."""


class Health(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the user set of the watch over endpoints, in seconds. None: the picker's default."""

    first_byte_timeout: float | None = None
    scrape_interval: float | None = None
    metrics_staleness_threshold: float | None = None


DEFAULT_ADMISSION = Admission()
DEFAULT_HEALTH = Health()


class AppliedPolicy(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Everything that a PickerPolicy and InferenceObjectives say of one pool."""

    scheduling: Scheduling | None = None
    """None: the picker's default profile."""
    admission: Admission = DEFAULT_ADMISSION
    fallbacks: int = 0
    """Further endpoints in an answer, 0 to 2, for a retry before the first byte."""
    explain: bool = False
    """Whether `X-Infergate-Explain` is answered."""
    usage: bool = False
    """Whether the tokens of answers are read."""
    refuse_unknown_models: bool = False
    """Whether a model that the pool does not have is answered 404."""
    health: Health = DEFAULT_HEALTH


DEFAULT_POLICY = AppliedPolicy()
