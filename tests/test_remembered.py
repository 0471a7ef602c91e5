"""What one turn leaves to the next changes nothing but the work: everything is as if it were made anew."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from controller.provider.file import read
from controller.remembered import Remembered
from controller.render import memory as render_memory
from controller.render.files import RenderSettings, render
from controller.resources.gateway_api import CONTROLLER_NAME, HTTPRoute
from controller.resources.meta import Key, Resource
from controller.resources.snapshot import Snapshot, snapshot
from controller.status import memory as status_memory
from controller.status.derive import derive
from controller.topology import memory as topology_memory
from controller.topology.build import build
from controller.topology.refusals import Refusals
from controller.topology.types import Topology
from controller.translate.build import translate

CASES = sorted((Path(__file__).parent / "cases").glob("*/input.yaml"))
EDGE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: infergate}
spec: {controllerName: infergate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: demo}
spec:
  gatewayClassName: infergate
  listeners: [{name: http, port: 80, protocol: HTTP}]
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route-%(number)d, namespace: demo}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%(number)d}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: example.com}}]
"""


def test_what_is_made_of_the_same_parts_is_made_once() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    remembered: Remembered[int] = Remembered()
    part, other = object(), object()
    assert [remembered.get("a", (part,), make) for _ in range(2)] == [0, 0]
    remembered.turn()
    assert remembered.get("a", (part,), make) == 0
    assert remembered.get("a", (other,), make) == 1
    assert remembered.get("b", (other,), make) == 2


def test_what_is_not_asked_for_in_a_turn_is_forgotten() -> None:
    remembered: Remembered[object] = Remembered()
    part = object()
    first = remembered.get("a", (part,), object)
    remembered.turn()
    remembered.turn()
    assert remembered.get("a", (part,), object) is not first


def test_results_without_a_value_are_remembered_too() -> None:
    remembered: Remembered[None] = Remembered()
    part = object()
    remembered.get("a", (part,), lambda: None)
    assert remembered.get("a", (part,), pytest.fail) is None


def served(topology: Topology, memory: render_memory.Memory | None = None) -> object:
    config = translate(topology, name="test", gateways=frozenset(gateway.key for gateway in topology.gateways))
    return render(config, RenderSettings(), memory=memory)


def statuses(
    topology: Topology, present: Snapshot, refused: Key | None, memory: status_memory.Memory | None = None
) -> object:
    refusals = Refusals({refused: "nginx does not like it"} if refused else {}, {}, {})
    return derive(topology, snapshot=present, controller_name=CONTROLLER_NAME, refusals=refusals, memory=memory)


def assert_same(found: Topology, first: Topology) -> None:
    """Upstreams that no route leads to any more may be left over; translating leaves them out."""
    assert replace(found, upstreams=first.upstreams) == first
    assert set(found.upstreams) >= set(first.upstreams)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
def test_each_resource_added_and_removed_gives_what_a_first_build_gives(path: Path) -> None:
    resources = list(read(path).resources)
    order = random.Random(path.parent.name)
    built, rendered, told = topology_memory.Memory(), render_memory.Memory(), status_memory.Memory()
    left_out: list[Resource] = []
    for _ in range(12):
        if left_out and order.random() < 0.5:
            left_out.pop(order.randrange(len(left_out)))
        else:
            left_out.append(order.choice(resources))
        present = snapshot(item for item in resources if item not in left_out)
        topology = build(present, controller_name=CONTROLLER_NAME, memory=built)
        assert_same(topology, build(present, controller_name=CONTROLLER_NAME))
        assert served(topology, rendered) == served(topology)
        refused = order.choice([None, *(route.key for route in topology.routes)])
        assert statuses(topology, present, refused, told) == statuses(topology, present, refused)


def test_another_case_with_the_same_memory_gives_what_a_first_build_gives() -> None:
    built, rendered = topology_memory.Memory(), render_memory.Memory()
    paths = [*CASES, *CASES]
    random.Random(5).shuffle(paths)
    for path in paths:
        resources = read(path)
        topology = build(resources, controller_name=CONTROLLER_NAME, memory=built)
        assert_same(topology, build(resources, controller_name=CONTROLLER_NAME))
        assert served(topology, rendered) == served(topology), path


def test_routes_that_are_the_same_are_not_resolved_again(tmp_path: Path) -> None:
    source = tmp_path / "routes.yaml"
    source.write_text(EDGE + "".join(ROUTE % {"number": number} for number in range(5)))
    first = read(source)
    changed = next(item for item in first.resources if isinstance(item, HTTPRoute) and item.metadata.name == "route-3")
    memory = topology_memory.Memory()
    before = build(first, controller_name=CONTROLLER_NAME, memory=memory)
    after = build(_with(first, changed, spec=changed.spec.model_copy()), controller_name=CONTROLLER_NAME, memory=memory)
    assert [new is old for new, old in zip(after.routes, before.routes, strict=True)] == [True, True, True, False, True]


def test_a_status_that_others_write_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "routes.yaml"
    source.write_text(EDGE + ROUTE % {"number": 1})
    first = read(source)
    memory = topology_memory.Memory()
    before = build(first, controller_name=CONTROLLER_NAME, memory=memory)
    for item in first.resources:
        after = build(_with(first, item, status={"parents": []}), controller_name=CONTROLLER_NAME, memory=memory)
        assert after.routes[0] is before.routes[0]


def _with(base: Snapshot, item: Resource, **changes: object) -> Snapshot:
    newer = item.model_copy(update=changes)
    return replace(base, resources=tuple(newer if one is item else one for one in base.resources))
