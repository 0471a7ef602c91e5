"""What Gateways that share one data plane cannot have."""

from collections.abc import Callable

import pytest

from controller.resources.snapshot import Snapshot
from controller.topology.sharing import shared
from controller.topology.types import Condition, Topology

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]

PARAMETERS = """
kind: GatewayParameters
metadata: {name: own}
spec: {replicas: 3, service: {type: NodePort}, nginx: {maxBodySize: 1Mi, workers: 2}}
"""
GATEWAY = """
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: infergate
  {more}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""
OWN = "infrastructure: {parametersRef: {group: infergate.dev, kind: GatewayParameters, name: own}}"

IGNORED = [
    ("infrastructure: {labels: {a: b}}", "without effect on one machine: infrastructure.labels"),
    ("infrastructure: {annotations: {a: b}}", "without effect on one machine: infrastructure.annotations"),
    (
        OWN,
        "without effect on one machine: GatewayParameters nginx.workers, GatewayParameters replicas, "
        "GatewayParameters service.type",
    ),
    (
        "defaultScope: All\n  infrastructure: {labels: {a: b}}",
        "not supported yet and without effect: defaultScope; without effect on one machine: infrastructure.labels",
    ),
]


@pytest.mark.parametrize(("more", "message"), IGNORED)
def test_what_is_said_of_a_data_plane_is_named_and_the_gateway_serves(
    read: Read, build_all: Build, more: str, message: str
) -> None:
    texts = (GATEWAY.format(more=more), PARAMETERS)
    (gateway,) = shared(build_all(*texts), snapshot=read(*texts)).gateways
    condition = next(item for item in gateway.conditions if item.type == "infergate.dev/IgnoredFields")

    assert condition == Condition("infergate.dev/IgnoredFields", True, "UnsupportedValue", message)
    assert gateway.serves


def test_gateway_that_says_nothing_of_its_data_plane_is_as_it_was(read: Read, build_all: Build) -> None:
    text = GATEWAY.format(more="infrastructure: {}")

    assert shared(build_all(text), snapshot=read(text)) == build_all(text)


SIDE = """
kind: Gateway
metadata: {{name: side}}
spec:
  gatewayClassName: infergate
  listeners: [{{name: it, {listener}}}]
"""
PASSES = "protocol: TLS, tls: {mode: Passthrough}"
SIDES = [  # of Gateway web, of Gateway side, whether the second serves
    ("port: 443, hostname: a.example, " + PASSES, "port: 443, hostname: b.example, " + PASSES, True),
    ("port: 443, hostname: a.example, " + PASSES, "port: 443, hostname: a.example, " + PASSES, False),
    ("port: 443, hostname: a.example, " + PASSES, "port: 443, protocol: TCP", False),
    ("port: 53, protocol: UDP", "port: 53, protocol: TCP", True),
    ("port: 53, protocol: UDP", "port: 53, protocol: UDP", False),
    ("port: 80, protocol: HTTP", "port: 80, protocol: TCP", False),
]


@pytest.mark.parametrize(("first", "second", "serves"), SIDES)
def test_gateways_share_ports_as_listeners_of_one_do(
    read: Read, build_all: Build, first: str, second: str, serves: bool
) -> None:
    texts = (
        SIDE.format(listener=first).replace("name: side", 'name: web, creationTimestamp: "2026-01-01T00:00:00Z"'),
        SIDE.format(listener=second).replace("name: side", 'name: side, creationTimestamp: "2026-01-02T00:00:00Z"'),
    )
    found = {item.key.name: item for item in shared(build_all(*texts), snapshot=read(*texts)).gateways}

    assert found["web"].listeners[0].serves
    assert found["side"].listeners[0].serves is serves
