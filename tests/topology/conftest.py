"""Topologies from short YAML: apiVersion and namespace may be left out, and a GatewayClass of ours is always there."""

from collections.abc import Callable
from datetime import datetime
from textwrap import dedent
from typing import Any

import pytest
import yaml

from controller.resources.backend_tls import BackendTLSPolicy
from controller.resources.core import ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service
from controller.resources.gateway_api import (
    CONTROLLER_NAME,
    Gateway,
    GatewayClass,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
)
from controller.resources.grpc_route import GRPCRoute
from controller.resources.inference import InferencePool
from controller.resources.legacy import InferenceModel, LegacyInferencePool
from controller.resources.meta import Resource
from controller.resources.parameters import GatewayParameters
from controller.resources.policies import InferenceObjective, PickerPolicy
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.snapshot import Snapshot, snapshot
from controller.resources.stream_routes import TCPRoute, TLSRoute, UDPRoute
from controller.topology.build import build
from controller.topology.types import Topology

Build = Callable[..., Topology]

MODELS: tuple[type[Resource], ...] = (
    *(BackendTLSPolicy, ConfigMap, GatewayParameters, InferenceModelRewrite, InferenceObjective, PickerPolicy),
    *(TCPRoute, TLSRoute, UDPRoute),
    *(EndpointSlice, Gateway, GatewayClass, GRPCRoute, HTTPRoute, InferencePool, ListenerSet, Namespace, Pod),
    *(InferenceModel, LegacyInferencePool, ReferenceGrant, Secret, Service),
)

CLASS = f"""
kind: GatewayClass
metadata: {{name: infergate}}
spec: {{controllerName: {CONTROLLER_NAME}}}
"""

GATEWAY = """
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: infergate
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""


def _resource(document: dict[str, Any]) -> Resource:  # YAML of any shape
    group = document.get("apiVersion", "").rpartition("/")[0]
    alike = [item for item in MODELS if item.kind_name() == document["kind"]]
    model = next((item for item in alike if item.group == group), alike[0])
    version = f"{model.group}/{model.versions[0]}" if model.group else model.versions[0]
    namespace = {} if model.cluster_scoped else {"namespace": "shop"}
    return model.model_validate({"apiVersion": version, **document, "metadata": {**namespace, **document["metadata"]}})


def _snapshot(*texts: str) -> Snapshot:
    documents = [document for text in (CLASS, *texts) for document in yaml.safe_load_all(dedent(text)) if document]
    return snapshot(_resource(document) for document in documents)


@pytest.fixture
def read() -> Callable[..., Snapshot]:
    """A snapshot of the documents given, and our GatewayClass."""
    return _snapshot


@pytest.fixture
def build_all() -> Build:
    """A topology of exactly the documents given, and our GatewayClass."""

    def build_all(*texts: str, now: datetime | None = None) -> Topology:
        return build(_snapshot(*texts), controller_name=CONTROLLER_NAME, now=now)

    return build_all


@pytest.fixture
def build_web(build_all: Build) -> Build:
    """A topology with a Gateway `shop/web`, which has one listener `http` on port 80, beside the documents given."""

    def build_web(*texts: str) -> Topology:
        return build_all(GATEWAY, *texts)

    return build_web
