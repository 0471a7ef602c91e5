"""Pools and models of the former group on a real API server, which serves them from some moment on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final

import pytest

from controller.errors import ApiMissing
from controller.kube import APPLY, Api
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.provider.kubernetes.statuses import StatusWriter
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.legacy import LEGACY_GROUP, InferenceModel, LegacyInferencePool
from controller.resources.meta import Key
from controller.status.derive import derive
from controller.topology.build import build
from tests.cluster.objects import Json, gateway, gateway_class, route, until
from tests.cluster.test_statuses import becomes

DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
VERSION: Final = f"{LEGACY_GROUP}/v1alpha2"
TEXT: Final[Json] = {"type": "string"}
CONDITIONS: Final[Json] = {
    "type": "array",
    "maxItems": 8,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            **dict.fromkeys(("type", "status", "reason", "message"), TEXT),
            "lastTransitionTime": {**TEXT, "format": "date-time"},
            "observedGeneration": {"type": "integer"},
        },
    },
}
NOBODY: Final[Json] = {
    "parentRef": {"kind": "Status", "name": "default"},
    "conditions": [
        {
            "type": "Accepted",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ],
}
PARENT: Final[Json] = {
    "type": "object",
    "required": ["parentRef"],
    "properties": {
        "parentRef": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": dict.fromkeys(("apiVersion", "kind", "name", "namespace", "uid"), TEXT),
        },
        "conditions": CONDITIONS,
    },
}
STATUSES: Final[Mapping[str, Json]] = {
    "InferencePool": {
        "type": "object",
        "default": {"parent": [NOBODY]},
        "properties": {"parent": {"type": "array", "maxItems": 32, "items": PARENT}},
    },
    "InferenceModel": {"type": "object", "properties": {"conditions": CONDITIONS}},
}
"""The shapes that the kinds had, as far as they matter here."""


def _definition(kind: str) -> Json:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": STATUSES[kind]}}
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{LEGACY_GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": LEGACY_GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": "v1alpha2",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


@pytest.fixture
async def undefined(api: Api) -> AsyncIterator[None]:
    """The kinds are not there before the test, and not behind it."""
    for kind in STATUSES:
        try:
            await api.request("GET", f"{DEFINITIONS}/{kind.lower()}s.{LEGACY_GROUP}")
        except ApiMissing:
            continue
        pytest.skip(f"the cluster has {kind} of {LEGACY_GROUP}, which the test would take away")
    yield
    for kind in STATUSES:
        with contextlib.suppress(ApiMissing):
            await api.request("DELETE", f"{DEFINITIONS}/{kind.lower()}s.{LEGACY_GROUP}")


async def _define(api: Api, kind: str) -> None:
    path = f"{DEFINITIONS}/{kind.lower()}s.{LEGACY_GROUP}"
    await api.request("PATCH", path, _definition(kind), query={"fieldManager": "tests"}, patch=APPLY)

    def is_established(status: Json) -> bool:
        conditions = status.get("conditions") or ()
        return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)

    await becomes(api, path, is_established)


@pytest.mark.usefixtures("undefined")
async def test_kinds_are_read_once_they_are_served_and_get_their_statuses(api: Api, namespace: str) -> None:
    gateways = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}"
    legacy = f"/apis/{VERSION}/namespaces/{namespace}"
    class_name = f"legacy-{namespace}"
    await api.request("POST", "/apis/gateway.networking.k8s.io/v1/gatewayclasses", gateway_class(class_name))
    await api.request("POST", f"{gateways}/gateways", gateway("edge", class_name=class_name))
    made = route("llm")
    made["spec"]["rules"][0]["backendRefs"] = [{"group": LEGACY_GROUP, "kind": "InferencePool", "name": "llm"}]
    await api.request("POST", f"{gateways}/httproutes", made)
    provider = KubernetesProvider(api, namespaces=[namespace], on_seen=lambda key: writer.look_at(key))
    writer = StatusWriter(
        api, held=provider.held, controller_name=CONTROLLER_NAME, is_leader=lambda: True, outage=provider.outage
    )
    async with aclosing(provider.snapshots()) as snapshots:
        first, _ = await anext(snapshots)
        assert not any(isinstance(item, LegacyInferencePool | InferenceModel) for item in first.resources)
        for kind in STATUSES:
            await _define(api, kind)
        head = {"apiVersion": VERSION, "metadata": {"name": "llm"}}
        spec = {"selector": {"app": "llm"}, "targetPortNumber": 8000, "extensionRef": {"name": "missing"}}
        await api.request("POST", f"{legacy}/inferencepools", {**head, "kind": "InferencePool", "spec": spec})
        spec = {"modelName": "chat", "criticality": "Critical", "poolRef": {"name": "llm"}}
        await api.request("POST", f"{legacy}/inferencemodels", {**head, "kind": "InferenceModel", "spec": spec})
        found, _ = await until(
            snapshots, lambda it: {LegacyInferencePool, InferenceModel} <= {type(item) for item in it.resources}
        )
        updates = derive(build(found, controller_name=CONTROLLER_NAME), snapshot=found, controller_name=CONTROLLER_NAME)
        task = asyncio.ensure_future(writer.run())
        try:
            writer.want(updates)
            await becomes(api, f"{legacy}/inferencemodels/llm", lambda status: _reasons(status) == ["Accepted"])
            pool = await becomes(api, f"{legacy}/inferencepools/llm", lambda status: _parents(status) == ["edge"])
            (entry,) = pool["status"]["parent"]
            assert _reasons(entry) == ["Accepted", "InvalidExtensionRef", "Controller"]
            writer.want([item for item in updates if item.key != Key(LEGACY_GROUP, "InferencePool", namespace, "llm")])
            pool = await becomes(api, f"{legacy}/inferencepools/llm", lambda status: _parents(status) != ["edge"])
            assert pool["status"]["parent"] == [NOBODY]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await api.request("DELETE", f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{class_name}")


def _reasons(status: Json) -> list[str]:
    return [item["reason"] for item in status.get("conditions", ())]


def _parents(status: Json) -> list[str]:
    return [item["parentRef"]["name"] for item in status.get("parent", ())]
