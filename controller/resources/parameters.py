"""GatewayParameters of the group infergate.dev: what a Gateway's own data plane is made of.

A GatewayClass names one for all its Gateways, and a Gateway one of its own, which goes before it field by field.
What is in Kubernetes' own shape and not looked into (affinity) is judged by the API server when it is applied.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from controller.resources.described import Described, rules
from controller.resources.meta import Resource
from controller.resources.scalars import (
    Broken,
    Duration,
    Labels,
    LabelValue,
    LongText,
    ObjectName,
    Text,
    qualified_keys,
    quoted,
    seconds,
    unique_by,
)

MOST_REPLICAS: Final = 1000
"""More pods than one Service and one picker's share of endpoints are good for."""

MOST_WORKERS: Final = 512
"""Processors of the largest machines on which one nginx makes sense."""

_QUANTITY: Final = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_UNITS: Final = {
    **{"": Decimal(1), "m": Decimal("0.001")},
    **{unit: Decimal(1000**power) for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
    **{unit: Decimal(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
}

_int32: Final = {"format": "int32"}

Replicas = Annotated[int, Field(strict=True, ge=1, le=MOST_REPLICAS, json_schema_extra=_int32)]
Percentage = Annotated[int, Field(strict=True, ge=1, le=1000, json_schema_extra=_int32)]


def _quantity(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_QUANTITY, text):
        raise Broken(f"found {quoted(value)}, accepted is a quantity such as 500m, 2 or 512Mi")
    return text


Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]
"""As written, a number without quotes too; `amount` gives its value."""


def amount(quantity: Quantity) -> float:
    """Value of a quantity such as `500m`, `2` or `512Mi`.

    Source: Kubernetes, resource.Quantity, without exponents and signs.
    """
    number = quantity.rstrip("mkKMGTi")
    return float(Decimal(number) * _UNITS[quantity.removeprefix(number)])


class Resources(Described):
    """What a container asks for and may use, by resource, such as cpu and memory."""

    requests: Annotated[dict[Text, Quantity], Field(max_length=16), AfterValidator(qualified_keys)] = Field(
        default_factory=dict
    )
    """What a node must have free."""
    limits: Annotated[dict[Text, Quantity], Field(max_length=16), AfterValidator(qualified_keys)] = Field(
        default_factory=dict
    )
    """What the container gets at most."""


class ContainerResources(Described):
    """Resources of the two containers of a pod."""

    nginx: Resources | None = None
    """NGINX and its agent. Without `nginx.workers`, the limit of cpu is the number of NGINX's workers."""
    picker: Resources | None = None
    """The endpoint picker, which uses one processor at most."""


_AUTOSCALING_RULES = (("self.minReplicas <= self.maxReplicas", "minReplicas: at most maxReplicas"),)


class Autoscaling(Described):
    """A HorizontalPodAutoscaler's bounds and targets. It needs the metrics API in the cluster."""

    model_config = ConfigDict(json_schema_extra=rules(*_AUTOSCALING_RULES))

    min_replicas: Replicas = 2
    """Fewest pods."""
    max_replicas: Replicas
    """Most pods."""
    cpu_utilization: Percentage = 70
    """Percentage of the requested cpu that pods use on average."""
    memory_utilization: Percentage | None = None
    """Percentage of the requested memory that pods use on average."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise Broken(
                f"found {self.min_replicas}, accepted is at most maxReplicas, {self.max_replicas}", "minReplicas"
            )
        return self


class Toleration(Described):
    """A taint of nodes that pods tolerate."""

    key: Annotated[str, Field(strict=True, max_length=316)] | None = None
    """Key of the taint; all keys when it is left out."""
    operator: Literal["Equal", "Exists"] | None = None
    """How the value is compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; all effects when it is left out."""
    toleration_seconds: Annotated[int, Field(strict=True, ge=0, json_schema_extra={"format": "int64"})] | None = None
    """How long a taint NoExecute is tolerated; for ever when it is left out."""


class Spread(Described):
    """How evenly pods of the Gateway are spread; the label selector is that of the Gateway's pods."""

    max_skew: Annotated[int, Field(strict=True, ge=1, json_schema_extra=_int32)] = 1
    """By how many pods two domains may differ."""
    topology_key: Annotated[str, Field(strict=True, min_length=1, max_length=316)]
    """Label of nodes whose values are the domains."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """What happens to a pod that would be one too many."""
    min_domains: Annotated[int, Field(strict=True, ge=1, json_schema_extra=_int32)] | None = None
    """Fewest domains that there must be, with DoNotSchedule."""


class Affinity(Described):
    """Which nodes pods prefer or need, in Kubernetes' words."""

    node_affinity: dict[str, Any] | None = None  # any: judged by the API server, as below
    """As in a pod's spec.affinity."""
    pod_affinity: dict[str, Any] | None = None  # any: as above
    """As in a pod's spec.affinity."""
    pod_anti_affinity: dict[str, Any] | None = None  # any: as above
    """As in a pod's spec.affinity."""


_SERVICE_RULES = (
    (
        "!has(self.loadBalancerClass) || !has(self.type) || self.type == 'LoadBalancer'",
        "loadBalancerClass: only with type LoadBalancer",
    ),
    (
        "!has(self.externalTrafficPolicy) || !has(self.type) || self.type != 'ClusterIP'",
        "externalTrafficPolicy: not with type ClusterIP",
    ),
)


class ServiceParameters(Described):
    """The Service in front of a Gateway's pods."""

    model_config = ConfigDict(json_schema_extra=rules(*_SERVICE_RULES))

    type: Literal["LoadBalancer", "NodePort", "ClusterIP"] | None = None
    """LoadBalancer by default."""
    annotations: Annotated[dict[Text, LongText], Field(max_length=64), AfterValidator(qualified_keys)] | None = None
    """Annotations, such as those that a cloud's load balancers look at."""
    load_balancer_class: Annotated[str, Field(strict=True, min_length=1, max_length=316)] | None = None
    """Which implementation of load balancers serves it. It cannot be changed while the Service is there."""
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    """Local keeps the client's address, and sends only to nodes that have a pod."""

    @model_validator(mode="after")
    def _fields_fit_type(self) -> Self:
        if self.load_balancer_class is not None and self.type in ("NodePort", "ClusterIP"):
            raise Broken(f"found, but type {self.type} takes none", "loadBalancerClass")
        if self.external_traffic_policy is not None and self.type == "ClusterIP":
            raise Broken("found, but type ClusterIP takes none", "externalTrafficPolicy")
        return self


_SIZE = "string(self.maxBodySize)"
_LEAST_BODY, _MOST_BODY = 1024, 64 * 1024**3
_NGINX_RULES = (
    (
        f"!has(self.maxBodySize) || !isQuantity({_SIZE}) || "
        f"(quantity({_SIZE}).compareTo(quantity('1Ki')) >= 0 && quantity({_SIZE}).compareTo(quantity('64Gi')) <= 0)",
        "maxBodySize: from 1Ki to 64Gi",
    ),
)


class NginxParameters(Described):
    """Settings of NGINX."""

    model_config = ConfigDict(json_schema_extra=rules(*_NGINX_RULES))

    workers: Annotated[int, Field(strict=True, ge=1, le=MOST_WORKERS, json_schema_extra=_int32)] | None = None
    """Worker processes. By default as many as the container's limit of cpu, rounded up, 512 at most, or two without a
    limit."""
    worker_connections: Annotated[int, Field(strict=True, ge=64, le=1048576, json_schema_extra=_int32)] | None = None
    """Connections of a worker, to clients and to model servers together; 16384 by default."""
    max_body_size: Quantity | None = None
    """Size of a request's body from which on it is answered 413, from 1Ki to 64Gi; 128Mi by default."""

    @model_validator(mode="after")
    def _body_is_in_range(self) -> Self:
        if self.max_body_size is not None and not _LEAST_BODY <= amount(self.max_body_size) <= _MOST_BODY:
            found = quoted(self.max_body_size)
            raise Broken(f"found {found}, accepted is a size from 1Ki to 64Gi", "maxBodySize")
        return self


class PullSecret(Described):
    """A Secret in the namespace of the Gateway."""

    name: ObjectName
    """Name of the Secret."""


_GRACE_RULES = (
    (
        "!has(self.gracePeriod) || (duration(self.gracePeriod) >= duration('5s')"
        " && duration(self.gracePeriod) <= duration('24h'))",
        "gracePeriod: from 5s to 24h",
    ),
)


class GatewayParametersSpec(Described):
    """What the data plane of a Gateway is made of. Everything has a default."""

    model_config = ConfigDict(json_schema_extra=rules(*_GRACE_RULES))

    replicas: Replicas | None = None
    """Pods of the data plane, while there is no autoscaling; 2 by default."""
    autoscaling: Autoscaling | None = None
    """Has a HorizontalPodAutoscaler say how many pods there are."""
    image: Annotated[str, Field(strict=True, min_length=1, max_length=1024, pattern=r"^[^\s]+$")] | None = None
    """Image of both containers; by default that of the control plane."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled."""
    image_pull_secrets: Annotated[tuple[PullSecret, ...], Field(max_length=16)] | None = None
    """Secrets with which the image is pulled."""
    resources: ContainerResources | None = None
    """Resources of the two containers."""
    pod_labels: Annotated[Labels, Field(max_length=64)] | None = None
    """Labels of the pods. Those by which the Gateway finds its pods stay as they are."""
    pod_annotations: Annotated[dict[Text, LongText], Field(max_length=64), AfterValidator(qualified_keys)] | None = None
    """Annotations of the pods."""
    node_selector: Annotated[Labels, Field(max_length=64)] | None = None
    """Labels that nodes must have."""
    affinity: Affinity | None = None
    """Which nodes pods prefer or need."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] | None = None
    """Taints of nodes that pods tolerate."""
    topology_spread_constraints: (
        Annotated[tuple[Spread, ...], Field(max_length=16), AfterValidator(unique_by("topology_key"))] | None
    ) = None
    """How pods are spread; by default over nodes and zones as well as it can be done."""
    priority_class_name: Annotated[str, Field(strict=True, min_length=1, max_length=253)] | None = None
    """PriorityClass of the pods."""
    grace_period: Duration | None = None
    """How long a pod that ends lets streams run on, from 5s to 24h; 5m by default."""
    service: ServiceParameters | None = None
    """The Service in front of the pods."""
    nginx: NginxParameters | None = None
    """Settings of NGINX."""

    @model_validator(mode="after")
    def _grace_is_in_range(self) -> Self:
        if self.grace_period is not None and not 5 <= seconds(self.grace_period) <= 86400:
            raise Broken(f"found {quoted(self.grace_period)}, accepted is a time from 5s to 24h", "gracePeriod")
        return self


class GatewayParameters(Resource):
    group: ClassVar[str] = "infergate.dev"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    spec: GatewayParametersSpec


NO_PARAMETERS: Final = GatewayParametersSpec()
"""What is said where nothing is referred to."""
