"""Objects without what nobody here reads, before anything of them is kept.

A pod of a cluster is 5 to 20 KB as the API server sends it, and a few hundred bytes of it are used.
"""

from collections.abc import Mapping
from typing import Any, Final

from controller.kube import Json
from controller.resources.core import EndpointSlice, Pod
from controller.resources.meta import Resource

_METADATA: Final = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp", "labels")
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""Holds the whole object once more."""
_LONGEST: Final = 256
"""Characters of a pod's annotation. What is read of pods is a list of ports; others put whole configurations there."""


def trimmed(document: Json, model: type[Resource]) -> Json:
    """A document with only those fields that may become a part of `model`."""
    before = document.get("metadata") or {}
    metadata = {name: before[name] for name in _METADATA if name in before}
    annotations = _annotations(before.get("annotations") or {}, model)
    if annotations:
        metadata["annotations"] = annotations
    kept = {**document, "metadata": metadata}
    if model is Pod:
        kept["spec"] = _pod_spec(document.get("spec") or {})
        kept["status"] = _pod_status(document.get("status") or {})
    return kept


def _annotations(annotations: Mapping[str, str], model: type[Resource]) -> dict[str, str]:
    if model is EndpointSlice:  # changes with each change of an endpoint, and says when
        return {}
    longest = _LONGEST if model is Pod else None
    return {
        name: value
        for name, value in annotations.items()
        if name != _APPLIED and (longest is None or len(value) <= longest)
    }


def _pod_spec(spec: Mapping[str, Any]) -> Json:  # Any: fields of any shape, as the API server sends them
    containers = [
        {"name": item.get("name", ""), "ports": item["ports"]}
        for item in spec.get("containers") or ()
        if item.get("ports")
    ]
    return {"containers": containers}


def _pod_status(status: Mapping[str, Any]) -> Json:  # Any: as above
    ready = [
        {"type": "Ready", "status": item.get("status")}
        for item in status.get("conditions") or ()
        if item.get("type") == "Ready"
    ]
    kept = {name: status[name] for name in ("phase", "podIP", "podIPs") if name in status}
    return {**kept, "conditions": ready}
