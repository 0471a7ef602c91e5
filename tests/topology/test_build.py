"""The whole of a topology."""

from collections.abc import Callable
from random import Random

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot, snapshot
from controller.topology.build import build

Read = Callable[..., Snapshot]

EVERYTHING = """
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: infergate
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: more, port: 81, protocol: HTTP}]
---
kind: Gateway
metadata: {name: api}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 82, protocol: HTTP}]}
---
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: web}, {name: api}]
  rules:
  - backendRefs:
    - {name: db, port: 80}
    - {name: llm, group: inference.networking.k8s.io, kind: InferencePool}
---
kind: HTTPRoute
metadata: {name: blog}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: db, port: 80}, {name: zz, port: 80}]}]}
---
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 80}]}
---
kind: Service
metadata: {name: zz}
spec: {selector: {app: db}, ports: [{port: 80}]}
---
kind: InferencePool
metadata: {name: llm}
spec: {selector: {matchLabels: {app: db}}, targetPorts: [{number: 8001}, {number: 8000}]}
---
kind: InferencePool
metadata: {name: alone}
spec: {selector: {matchLabels: {app: db}}, targetPorts: [{number: 8000}]}
---
kind: Pod
metadata: {name: b, labels: {app: db}}
status: {podIP: 10.0.0.2}
---
kind: Pod
metadata: {name: a, labels: {app: db}}
status: {podIP: 10.0.0.1}
"""


def test_order_of_resources_does_not_matter(read: Read) -> None:
    resources = list(read(EVERYTHING).resources)
    expected = build(snapshot(resources), controller_name=CONTROLLER_NAME)

    for seed in range(5):
        Random(seed).shuffle(resources)
        assert build(snapshot(resources), controller_name=CONTROLLER_NAME) == expected


def test_everything_is_sorted_by_key(read: Read) -> None:
    topology = build(read(EVERYTHING), controller_name=CONTROLLER_NAME)

    assert [item.key.name for item in topology.gateways] == ["api", "web"]
    assert [item.key.name for item in topology.routes] == ["blog", "cart"]
    assert [item.key.name for item in topology.pools] == ["alone", "llm"]
    assert [item.name for item in topology.upstreams] == ["shop/db:80", "shop/zz:80"]
    assert [key.name for key, _ in topology.pools[1].parents] == ["api", "web"]


def test_gateways_of_another_controller_are_left_alone(read: Read) -> None:
    topology = build(read(EVERYTHING), controller_name="example.com/other")

    assert (topology.classes, topology.gateways, topology.routes, topology.upstreams) == ((), (), (), ())
    assert all(item.parents == () for item in topology.pools)


def test_nothing_makes_an_empty_topology() -> None:
    topology = build(snapshot([]), controller_name=CONTROLLER_NAME)
    assert (topology.classes, topology.gateways, topology.routes, topology.pools) == ((), (), (), ())
