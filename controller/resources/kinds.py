"""From a document to a resource: which kinds are read, which are passed over, and which are refused."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from controller.resources.backend_tls import BackendTLSPolicy
from controller.resources.core import ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service
from controller.resources.gateway_api import Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant
from controller.resources.grpc_route import GRPCRoute
from controller.resources.inference import InferencePool
from controller.resources.legacy import InferenceModel, LegacyInferencePool
from controller.resources.meta import Resource
from controller.resources.parameters import GatewayParameters
from controller.resources.policies import InferenceObjective, PickerPolicy
from controller.resources.problems import Problem, near, problems
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.scalars import quoted, shown_name
from controller.resources.snapshot import Rejection
from controller.resources.stream_routes import TCPRoute, TLSRoute, UDPRoute

MODELS: tuple[type[Resource], ...] = (
    GatewayClass,
    Gateway,
    ListenerSet,
    HTTPRoute,
    GRPCRoute,
    TLSRoute,
    TCPRoute,
    UDPRoute,
    ReferenceGrant,
    BackendTLSPolicy,
    InferencePool,
    LegacyInferencePool,
    InferenceModel,
    InferenceObjective,
    InferenceModelRewrite,
    PickerPolicy,
    GatewayParameters,
    Service,
    EndpointSlice,
    Pod,
    Secret,
    ConfigMap,
    Namespace,
)

KINDS: Mapping[tuple[str, str], type[Resource]] = {
    (f"{group}/{version}" if group else version, model.kind_name()): model
    for model in MODELS
    for group in (model.group, *model.former_groups)
    for version in model.versions
}
"""(apiVersion, kind) to the model that reads it."""

OUR_GROUPS = (
    "gateway.networking.k8s.io",
    "gateway.networking.x-k8s.io",
    "inference.networking.k8s.io",
    "inference.networking.x-k8s.io",
    "infergate.dev",
    "llm-d.ai",
)
"""Groups whose every kind is meant for a gateway: one that is not read is refused rather than passed over."""

_SECRET = ("data", "stringData")
_CLOSE = 0.9  # likeness from which a group counts as one of ours, misspelt


@dataclass(frozen=True)
class Ignored:
    """A document of a kind that a gateway has no use for."""

    kind: str
    """`apiVersion Kind`."""


@dataclass(frozen=True)
class Refused:
    """A document that did not become a resource."""

    subject: str
    """`Kind namespace/name` as far as it could be read, else `document N`."""
    problems: tuple[Problem, ...]
    """At least one."""


def parse(document: object, *, source: str, index: int) -> Resource | Ignored | tuple[Rejection, ...]:
    """A document as a resource, or why it is none.

    source: where it was read, for the rejections. index: its number there, from 1, for a document without a name.
    """
    result = read(document, index=index)
    if not isinstance(result, Refused):
        return result
    return tuple(Rejection(source, result.subject, item.field, item.message) for item in result.problems)


def read(document: object, *, index: int) -> Resource | Ignored | Refused:
    """A document as a resource, or why it is none, with the location of each problem."""
    if not isinstance(document, dict):
        return Refused(f"document {index}", (Problem((), f"found {quoted(document)}, accepted is a mapping"),))
    subject = subject_of(document, index=index)
    api_version, kind = document.get("apiVersion"), document.get("kind")
    for field, value in (("apiVersion", api_version), ("kind", kind)):
        if value is None:
            return Refused(subject, (Problem((field,), "missing, it is required"),))
        if not isinstance(value, str) or not value or len(value) > 320:
            return Refused(subject, (Problem((field,), f"found {quoted(value)}, accepted is text"),))
    assert isinstance(api_version, str)
    assert isinstance(kind, str)
    model = KINDS.get((api_version, kind))
    if model is None:
        problem = _unread(api_version, kind)
        return Refused(subject, (problem,)) if problem else Ignored(f"{api_version} {kind}")
    try:
        return model.model_validate(_in_scope(without_nulls(document), model), by_alias=True, by_name=False)
    except ValidationError as error:
        secret = _SECRET if model is Secret else ()
        return Refused(subject, problems(error, model=model, secret=secret))


def subject_of(document: Mapping[Any, Any], *, index: int) -> str:  # Any: a document that is not validated yet
    """`Kind namespace/name` of a document, as far as it can be read, else `document N`."""
    kind = document.get("kind")
    if not isinstance(kind, str) or not kind:
        return f"document {index}"
    metadata = document.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    name, namespace = fields.get("name"), fields.get("namespace")
    if not isinstance(name, str) or not name:
        return f"{shown_name(kind)} in document {index}"
    return named(kind, namespace if isinstance(namespace, str) else "", name)


def named(kind: str, namespace: str, name: str) -> str:
    """The subject of an object. namespace: as it is written, empty for none."""
    if any(model.kind_name() == kind and model.cluster_scoped for model in MODELS):
        return f"{shown_name(kind)} {shown_name(name)}"
    return f"{shown_name(kind)} {shown_name(namespace or 'default')}/{shown_name(name)}"


def without_nulls(value: Any) -> Any:  # Any: of any shape, and the shape stays
    """A value without the fields that are null, as an API server reads it. Items of lists stay."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _in_scope(document: dict[str, Any], model: type[Resource]) -> dict[str, Any]:  # Any: not validated yet
    """A document with the namespace that its scope demands."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return document
    if model.cluster_scoped:
        metadata = {key: value for key, value in metadata.items() if key != "namespace"}
    elif not metadata.get("namespace"):
        metadata = {**metadata, "namespace": "default"}
    return {**document, "metadata": metadata}


def _unread(api_version: str, kind: str) -> Problem | None:
    """Why a kind that has no model is a mistake; None when it is just not for a gateway."""
    group = api_version.rpartition("/")[0]
    same = [model for model in MODELS if model.kind_name() == kind]
    alike = [model for model in MODELS if model.kind_name().lower() == kind.lower()]
    home = [model for model in MODELS if group in (model.group, *model.former_groups)]
    if group not in OUR_GROUPS and group not in {model.group for model in MODELS}:
        close = difflib.get_close_matches(group[:128], OUR_GROUPS, n=1, cutoff=_CLOSE)
        return (
            Problem(("apiVersion",), f"found {quoted(api_version)}, did you mean group {close[0]}?") if close else None
        )
    if same:
        return Problem(("apiVersion",), f"found {quoted(api_version)}, for {kind} accepted is {_versions(same)}")
    if alike and group == alike[0].group:
        return Problem(("kind",), f"found {quoted(kind)}, did you mean {alike[0].kind_name()}?")
    if group not in OUR_GROUPS:
        return None
    hint = near(kind, [model.kind_name() for model in home], likeness=0.85)
    return Problem(
        ("kind",), f"found {quoted(kind)} of {quoted(group)}, which is not supported{', ' if hint else ''}{hint}"
    )


def _versions(models: Iterable[type[Resource]]) -> str:
    return " or ".join(
        f"{model.group}/{version}" if model.group else version for model in models for version in model.versions
    )
