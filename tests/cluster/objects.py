"""Objects that tests create, and waiting for snapshots that have them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from controller.provider.base import Change
from controller.resources.snapshot import Snapshot

Json = dict[str, Any]  # an object of the API
Snapshots = AsyncIterator[tuple[Snapshot, Change]]

GATEWAY_API = "/apis/gateway.networking.k8s.io/v1"


def route(name: str, *, path: str = "/", gateway: str = "edge") -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": gateway}], "rules": [{"matches": [{"path": {"value": path}}]}]},
    }


def gateway(name: str, *, class_name: str = "infergate") -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name},
        "spec": {"gatewayClassName": class_name, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }


def gateway_class(name: str) -> Json:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": "infergate.dev/gateway-controller"},
    }


def pool(name: str) -> Json:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "targetPorts": [{"number": 8000}]},
    }


def names(snapshot: Snapshot, *, kind: str, namespace: str = "") -> list[str]:
    return [item.key.name for item in snapshot.resources if (item.key.kind, item.key.namespace) == (kind, namespace)]


def told_of(namespace: str, told: Iterable[str]) -> list[str]:
    """What is told of objects of a namespace; others may change at any time."""
    return [one for one in told if f" {namespace}/" in one]


async def until(
    snapshots: Snapshots, holds: Callable[[Snapshot], bool], *, seconds: float = 20
) -> tuple[Snapshot, Change]:
    """The first snapshot of which something holds."""
    async with asyncio.timeout(seconds):
        async for snapshot, change in snapshots:
            if holds(snapshot):
                return snapshot, change
    raise AssertionError("the snapshots ended")
