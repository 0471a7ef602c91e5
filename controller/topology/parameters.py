"""GatewayParameters that a GatewayClass or a Gateway refers to, and what they come to.

Source: Gateway API, GatewayClassSpec.parametersRef, GatewayInfrastructure.parametersRef and reason InvalidParameters.
"""

import math
from collections.abc import Iterator
from typing import Final, TypeVar

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from controller.resources.gateway_api import Gateway, GatewayClass, LocalParametersReference
from controller.resources.parameters import (
    MOST_WORKERS,
    NO_PARAMETERS,
    Affinity,
    ContainerResources,
    GatewayParameters,
    GatewayParametersSpec,
    NginxParameters,
    ServiceParameters,
    amount,
)
from controller.topology.conditions import Condition, refused
from controller.topology.index import Index

EVERYWHERE: Final = frozenset({"nginx.maxBodySize"})
"""Fields that have an effect wherever Gateways are served, also where they share one data plane."""

_KIND: Final = f"{GatewayParameters.__name__}.{GatewayParameters.group}"
_GROUPS: Final = (ServiceParameters, NginxParameters, ContainerResources, Affinity)
"""Models whose fields are independent of each other."""
_WORKERS: Final = 2
"""Workers where neither they nor the container's cpu are limited: a node's number of processors is not known here."""


def parameters_of_class(item: GatewayClass, *, index: Index) -> GatewayParametersSpec | Condition:
    """What a class says of the data planes of its Gateways, or why it is not accepted."""
    reference = item.spec.parameters_ref
    if reference is None:
        return NO_PARAMETERS
    if reference.namespace is None:
        return refused("InvalidParameters", "spec.parametersRef.namespace is missing, GatewayParameters are in one")
    return _referred(reference, field="spec.parametersRef", namespace=reference.namespace, index=index)


def parameters_of(
    gateway: Gateway, *, of_class: GatewayParametersSpec, index: Index
) -> GatewayParametersSpec | Condition:
    """What is said of a Gateway's data plane, its own parameters over those of its class, or why it is not accepted."""
    reference = gateway.spec.infrastructure.parameters_ref if gateway.spec.infrastructure else None
    if reference is None:
        return of_class
    field = "spec.infrastructure.parametersRef"
    own = _referred(reference, field=field, namespace=gateway.metadata.namespace, index=index)
    return own if isinstance(own, Condition) else preferred(own, of_class)


def preferred(first: GatewayParametersSpec, second: GatewayParametersSpec) -> GatewayParametersSpec:
    """One spec of two: each field is that of the first, or where it has none, that of the second.

    Groups of fields (`service`, `nginx`, `resources`, `affinity`) are taken field by field as well; lists and mappings
    as a whole, and so is `autoscaling`, whose fields only make sense together.
    """
    return _preferred(first, second)


def fields_given(spec: GatewayParametersSpec) -> tuple[str, ...]:
    """Fields that say something, such as `replicas` and `service.type`, sorted."""
    return tuple(sorted(_given(spec)))


def max_body_size(spec: GatewayParametersSpec) -> int | None:
    """Bytes of a request's body; None where nothing is said."""
    size = spec.nginx.max_body_size if spec.nginx else None
    return None if size is None else int(amount(size))


def workers(spec: GatewayParametersSpec) -> int:
    """nginx's worker processes: as said, or as many as the container's limit of cpu lets run at a time."""
    if spec.nginx and spec.nginx.workers:
        return spec.nginx.workers
    limits = spec.resources.nginx.limits if spec.resources and spec.resources.nginx else {}
    return min(MOST_WORKERS, max(1, math.ceil(amount(limits["cpu"])))) if "cpu" in limits else _WORKERS


def memory(spec: GatewayParametersSpec) -> int | None:
    """Bytes that nginx's container may use; None without a limit."""
    limits = spec.resources.nginx.limits if spec.resources and spec.resources.nginx else {}
    return int(amount(limits["memory"])) if "memory" in limits else None


def _referred(
    reference: LocalParametersReference, *, field: str, namespace: str, index: Index
) -> GatewayParametersSpec | Condition:
    kind = f"{reference.kind}.{reference.group}"
    if kind != _KIND:
        return refused("InvalidParameters", f"{field} accepts {_KIND}, found {kind}")
    found = index.parameters.get((namespace, reference.name))
    if found is None:
        return refused("InvalidParameters", f"{field}: {reference.kind} {namespace}/{reference.name} does not exist")
    return found.spec


_M = TypeVar("_M", bound=BaseModel)


def _preferred(first: _M, second: _M) -> _M:
    found = {}
    for name in type(first).model_fields:
        mine, other = getattr(first, name), getattr(second, name)
        if isinstance(mine, _GROUPS) and isinstance(other, _GROUPS):
            found[name] = _preferred(mine, other)
        else:
            found[name] = other if mine is None else mine
    return first.model_copy(update=found)


def _given(model: BaseModel) -> Iterator[str]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, _GROUPS):
            yield from (f"{to_camel(name)}.{inner}" for inner in _given(value))
        elif value is not None:
            yield to_camel(name)
