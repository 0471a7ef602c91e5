"""PickerPolicy of the group infergate.dev, and InferenceObjective, which says how important a request is."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, model_validator

from controller.resources.described import Described, rules
from controller.resources.meta import Key, Model, Resource
from controller.resources.scalars import (
    Broken,
    ControllerName,
    Duration,
    Flag,
    Group,
    Kind,
    NamespaceName,
    ObjectName,
    quoted,
    seconds,
    unique,
)

Priority = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31, json_schema_extra={"format": "int32"})]


class PolicyTarget(Described):
    """An InferencePool in the namespace of the policy."""

    group: Literal["inference.networking.k8s.io", "inference.networking.x-k8s.io"] = "inference.networking.k8s.io"
    """Group of the target; the second is that of pools in version v1alpha2."""
    kind: Literal["InferencePool"] = "InferencePool"
    """Kind of the target."""
    name: ObjectName
    """Name of the InferencePool."""


_INTERVAL = "duration(has(self.scrapeInterval) ? self.scrapeInterval : '1s')"
_STALENESS = "duration(has(self.metricsStalenessThreshold) ? self.metricsStalenessThreshold : '3s')"
_HEALTH_RULES = (
    ("!has(self.firstByteTimeout) || duration(self.firstByteTimeout) > duration('0s')", "firstByteTimeout: above 0s"),
    (f"{_INTERVAL} >= duration('50ms') && {_INTERVAL} <= duration('1m')", "scrapeInterval: from 50ms to 1m"),
    (
        f"{_STALENESS} >= duration('50ms') && {_STALENESS} <= duration('10m')",
        "metricsStalenessThreshold: from 50ms to 10m",
    ),
    (f"{_INTERVAL} <= {_STALENESS}", "scrapeInterval: at most metricsStalenessThreshold"),
)
"""What the model checks, for an API server to check it too."""


class HealthSpec(Described):
    """When an endpoint is left alone."""

    model_config = ConfigDict(json_schema_extra=rules(*_HEALTH_RULES))

    first_byte_timeout: Duration | None = None
    """Time without the first byte of a streamed answer after which an endpoint counts as hanging; it gets nothing more
    until one request has shown that it answers. The requests that wait for it go on. By default 30s, and five times
    what is expected there."""
    scrape_interval: Duration | None = None
    """Time between two readings of an endpoint's metrics, 50ms to 60s; 1s by default."""
    metrics_staleness_threshold: Duration | None = None
    """Age from which on a reading counts for nothing, 50ms to 10m; 3s by default. Its endpoint is used where others
    cannot take the request, and the requests in flight to it count all the same."""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        interval, staleness = self.scrape_interval, self.metrics_staleness_threshold
        if self.first_byte_timeout is not None and seconds(self.first_byte_timeout) <= 0:
            raise Broken(f"found {quoted(self.first_byte_timeout)}, accepted is a time above 0s", "firstByteTimeout")
        if interval is not None and not 0.05 <= seconds(interval) <= 60:
            raise Broken(f"found {quoted(interval)}, accepted is a time from 50ms to 60s", "scrapeInterval")
        if staleness is not None and not 0.05 <= seconds(staleness) <= 600:
            raise Broken(f"found {quoted(staleness)}, accepted is a time from 50ms to 10m", "metricsStalenessThreshold")
        if seconds(interval or "1s") > seconds(staleness or "3s"):
            raise Broken(
                f"found {quoted(interval or '1s')}, accepted is at most metricsStalenessThreshold, {staleness or '3s'}",
                "scrapeInterval",
            )
        return self


class PrioritySpec(Described):
    """How important requests are, and what a client may claim."""

    default: Priority = 0
    """Priority of requests without an InferenceObjective. Below 0 they are refused first."""
    allow_client_objective: Flag = True
    """Whether a client may name one of the pool's InferenceObjectives in a header."""
    maximum: Priority | None = None
    """Highest priority that a client gets by its InferenceObjective."""
    allow_client_deadline: Flag = False
    """Whether a client may say in a header when it wants the first token, for slo-deadline-ordering-policy."""


class FairnessSpec(Described):
    """Between whom requests that wait are shared out."""

    allow_client_id: Flag = False
    """Whether a client may name its tenant in a header. Only for clients that are trusted."""
    tenant_by: Literal["Credential", "Address"] = "Credential"
    """What tells tenants apart otherwise: the credential of a request, or the client's address."""


class PickerPolicySpec(Described):
    """What the policy says of its targets. Everything has a default that needs no tuning."""

    target_refs: Annotated[
        tuple[PolicyTarget, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["group", "kind", "name"],
            },
        ),
        AfterValidator(unique),
    ]
    """InferencePools that the policy is for. Where two policies have the same target, the older one has it."""
    config: dict[str, Any] | None = None  # any: judged by controller.plugins, so that a mistake is a condition
    """How an endpoint is chosen and who waits, in the shape of an EndpointPickerConfig."""
    fallbacks: Annotated[int, Field(strict=True, ge=0, le=2)] | None = None
    """Further endpoints that an answer of the picker names, in order, for retries before the first byte. By default as
    the maxNumOfEndpoints of the configuration's picker says, less one."""
    health: HealthSpec = HealthSpec()
    """When an endpoint is left alone."""
    explain: Flag = False
    """Whether a client that sends `X-Infergate-Explain: 1` is told why its endpoint was chosen."""
    usage: Flag = False
    """Whether the tokens that answers report are read, for the access log, the metrics and the prefix index."""
    unknown_models: Literal["Forward", "Refuse"] = "Forward"
    """What happens to a request for a model that no endpoint of the pool lists and that no rewrite names: it goes to an
    endpoint all the same, or is answered 404 with the names of the models that are there."""
    priority: PrioritySpec = PrioritySpec()
    """How important requests are, and what a client may claim."""
    fairness: FairnessSpec = FairnessSpec()
    """Between whom requests that wait are shared out."""


class PickerPolicy(Resource):
    group: ClassVar[str] = "infergate.dev"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    spec: PickerPolicySpec


class ConditionStatus(Described):
    """One condition."""

    type: Annotated[str, Field(max_length=316)]
    """What it is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    """Generation of the resource that was judged."""
    last_transition_time: AwareDatetime
    """When the status changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """One word for why."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for a reader."""


class AncestorReference(Described):
    """What a policy is attached to."""

    group: Group = ""
    """Group of the target."""
    kind: Kind
    """Kind of the target."""
    namespace: NamespaceName | None = None
    """Namespace of the target."""
    name: ObjectName
    """Name of the target."""


class PolicyAncestorStatus(Described):
    """A policy's standing with one target."""

    ancestor_ref: AncestorReference
    """The target."""
    controller_name: ControllerName
    """Who says so."""
    conditions: Annotated[
        tuple[ConditionStatus, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    """Accepted with the reasons Accepted, Conflicted, Invalid and TargetNotFound; infergate.dev/IgnoredFields while the
    policy has fields without effect."""


class PolicyStatus(Described):
    """A policy's standing with each of its targets. Source: Gateway API, PolicyStatus."""

    ancestors: Annotated[
        tuple[PolicyAncestorStatus, ...],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """One entry for each target and controller."""


class PoolRef(Model):
    group: Group = "inference.networking.k8s.io"
    kind: Kind = "InferencePool"
    name: ObjectName


class InferenceObjectiveSpec(Model):
    priority: Priority = 0
    pool_ref: PoolRef


class InferenceObjective(Resource):
    """A priority by name. Both groups are one kind: the second is where it came from."""

    group: ClassVar[str] = "llm-d.ai"
    former_groups: ClassVar[tuple[str, ...]] = ("inference.networking.x-k8s.io",)
    versions: ClassVar[tuple[str, ...]] = ("v1alpha2",)

    spec: InferenceObjectiveSpec

    @property
    def key(self) -> Key:
        group = self.api_version.rpartition("/")[0]
        return Key(group=group, kind=self.kind, namespace=self.metadata.namespace, name=self.metadata.name)
