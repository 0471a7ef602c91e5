"""Snapshots from short YAML: apiVersion and namespace may be left out, and a GatewayClass of ours is always there."""

from collections.abc import Callable
from textwrap import dedent

import pytest
import yaml

from controller.resources.gateway_api import CONTROLLER_NAME, Gateway, GatewayClass, HTTPRoute, ListenerSet
from controller.resources.inference import InferencePool
from controller.resources.meta import Resource
from controller.resources.policies import InferenceObjective, PickerPolicy
from controller.resources.rewrites import InferenceModelRewrite
from controller.resources.snapshot import Snapshot, snapshot

MODELS: tuple[type[Resource], ...] = (
    *(Gateway, GatewayClass, HTTPRoute, InferenceModelRewrite, InferenceObjective, InferencePool, ListenerSet),
    PickerPolicy,
)

ALWAYS = f"""
kind: GatewayClass
metadata: {{name: infergate}}
spec: {{controllerName: {CONTROLLER_NAME}}}
---
kind: Gateway
metadata: {{name: web, generation: 3}}
spec:
  gatewayClassName: infergate
  listeners:
  - {{name: http, port: 80, protocol: HTTP}}
  - {{name: more, port: 81, protocol: HTTP}}
"""


@pytest.fixture
def read() -> Callable[..., Snapshot]:
    """A snapshot of the documents given beside a Gateway `shop/web` with listeners `http` and `more`."""

    def read(*texts: str) -> Snapshot:
        resources = []
        for text in (ALWAYS, *texts):
            for document in yaml.safe_load_all(dedent(text)):
                model = next(item for item in MODELS if item.__name__ == document["kind"])
                namespace = {} if model.cluster_scoped else {"namespace": "shop"}
                metadata = {**namespace, **document["metadata"]}
                version = f"{model.group}/{model.versions[0]}"
                resources.append(model.model_validate({"apiVersion": version, **document, "metadata": metadata}))
        return snapshot(resources)

    return read
