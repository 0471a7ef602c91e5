"""A control plane without sockets: resources from text, and instances that say what a test has them say."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from controller.bundle import Bundle
from controller.control_plane.publishing import Publishing
from controller.dataplane.base import Report
from controller.dataplane.instances import InstanceReport
from controller.dataplane.server import BundleServer
from controller.errors import NginxRefused
from controller.pools import Pools
from controller.provider.file import read
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.topology.build import build
from controller.topology.types import Topology

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, uid: u-%s}
spec:
  gatewayClassName: infergate
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec:
  parentRefs: [{name: %s}]
  rules:
  - matches: [{path: {type: RegularExpression, value: "%s"}}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}]
---
"""
POOL = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: gpu}
spec: {selector: {matchLabels: {app: gpu}}, targetPorts: [{number: 8000}]}
---
"""


def gateway(name: str = "edge") -> str:
    return GATEWAY % (name, name)


def route(name: str, path: str, *, parent: str = "edge") -> str:
    return ROUTE % (name, parent, path)


def pod(number: int) -> str:
    return (
        "apiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: p{number}, labels: {{app: gpu}}}}\nstatus: {{podIP: 10.0.0.{number}}}\n---\n"
    )


def said(
    version: str, *, live: str = "", refusal: NginxRefused | None = None, pod: str = "a", problem: str = ""
) -> InstanceReport:
    """What an instance says that was given a version."""
    report = Report("default/edge", version, serving=live == version, refusal=refusal, seconds=0.1)
    return InstanceReport(pod, f"uid-{pod}", report, live, "", problem)


class FakeServer:
    """Remembers what is published."""

    def __init__(self) -> None:
        self.bundles: dict[str, Bundle] = {}
        self.pools: dict[str, list[Pools]] = {}
        self.said: dict[str, tuple[InstanceReport, ...]] = {}

    def publish(self, gateway: str, bundle: Bundle) -> None:
        self.bundles[gateway] = bundle

    def publish_pools(self, gateway: str, pools: Pools) -> None:
        self.pools.setdefault(gateway, []).append(pools)

    def withdraw(self, gateway: str) -> None:
        del self.bundles[gateway]

    def reports(self, gateway: str) -> tuple[InstanceReport, ...]:
        return self.said.get(gateway, ())

    def count(self, gateway: str) -> int:
        return len(self.reports(gateway))

    def text(self, gateway: str = "default/edge") -> str:
        """Everything that is published for a Gateway."""
        return "\n".join(file.content.decode() for file in self.bundles[gateway].files)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publishing(server: FakeServer, clock: Clock) -> Publishing:
    return Publishing(cast(BundleServer, server), clock=clock)


Resources = Callable[..., tuple[Snapshot, Topology]]


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    """Reads documents, with what the cluster would say of them."""

    def made(*documents: str) -> tuple[Snapshot, Topology]:
        (tmp_path / "all.yaml").write_text("".join(documents))
        snapshot = read(tmp_path)
        return snapshot, build(snapshot, controller_name=CONTROLLER_NAME)

    return made
