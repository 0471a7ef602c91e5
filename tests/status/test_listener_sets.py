"""What the statuses of a Gateway and of its ListenerSets say of each other."""

from collections.abc import Callable

import pytest

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.status.derive import derive
from controller.status.types import Json, Programmed
from controller.topology.build import build
from controller.topology.refusals import Refusals

Read = Callable[..., Snapshot]

GROUP = "gateway.networking.k8s.io"
OPEN = """
kind: Gateway
metadata: {name: open}
spec:
  gatewayClassName: infergate
  allowedListeners: {namespaces: {from: Same}}
  listeners: [{name: http, port: 82, protocol: HTTP}]
"""
SETS = """
kind: ListenerSet
metadata: {name: let-in}
spec: {parentRef: {name: open}, listeners: [{name: a, port: 83, protocol: HTTP}, {name: b, port: 84, protocol: HTTP}]}
---
kind: ListenerSet
metadata: {name: kept-out}
spec: {parentRef: {name: web}, listeners: [{name: a, port: 83, protocol: HTTP}]}
"""
SET = Key(GROUP, "ListenerSet", "shop", "let-in")
SERVING = Programmed(serving=True)


def _statuses(
    read: Read, *texts: str, programmed: Programmed | None = SERVING, refused: tuple[str, ...] = ()
) -> dict[str, Json]:
    snapshot = read(OPEN, *texts)
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    updates = derive(
        topology,
        snapshot=snapshot,
        controller_name=CONTROLLER_NAME,
        programmed={item.key: programmed for item in topology.gateways} if programmed else {},
        refusals=Refusals({}, {(SET, name): "no" for name in refused}, {}),
    )
    return {item.key.name: item.status for item in updates}


def _condition(status: Json, type_: str) -> str:
    return next(f"{item['status']}/{item['reason']}" for item in status["conditions"] if item["type"] == type_)


def test_gateway_counts_the_sets_that_are_accepted(read: Read) -> None:
    statuses = _statuses(read, SETS)

    assert statuses["open"]["attachedListenerSets"] == 1
    assert statuses["web"]["attachedListenerSets"] == 0


def test_gateway_that_no_set_names_says_nothing_of_them(read: Read) -> None:
    assert "attachedListenerSets" not in _statuses(read)["open"]


def test_listeners_are_in_the_status_of_their_owner(read: Read) -> None:
    statuses = _statuses(read, SETS)

    assert [item["name"] for item in statuses["open"]["listeners"]] == ["http"]
    assert [item["name"] for item in statuses["let-in"]["listeners"]] == ["a", "b"]
    assert statuses["kept-out"]["listeners"] == []


@pytest.mark.parametrize(
    ("programmed", "refused", "expected"),
    [
        (SERVING, (), "True/Programmed"),
        (SERVING, ("a",), "True/Programmed"),
        (SERVING, ("a", "b"), "False/ListenersNotValid"),
        (Programmed(serving=False), (), "False/ParentNotProgrammed"),
        (None, (), "Unknown/Pending"),
    ],
)
def test_set_is_programmed_with_its_gateway(
    read: Read, programmed: Programmed | None, refused: tuple[str, ...], expected: str
) -> None:
    statuses = _statuses(read, SETS, programmed=programmed, refused=refused)

    assert _condition(statuses["let-in"], "Programmed") == expected
    assert _condition(statuses["kept-out"], "Programmed") == "False/NotAllowed"


def test_gateway_is_programmed_while_a_set_of_it_is_not(read: Read) -> None:
    statuses = _statuses(read, SETS, refused=("a", "b"))

    assert _condition(statuses["open"], "Programmed") == "True/Programmed"
