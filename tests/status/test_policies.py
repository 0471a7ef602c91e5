"""The status of policies and objectives."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.status.derive import derive
from controller.status.merge import merge
from controller.status.rows import worst_first
from controller.status.types import StatusUpdate
from controller.topology.build import build

Read = Callable[..., Snapshot]
Json = dict[str, Any]  # a piece of a status

POLICY = "kind: PickerPolicy\nmetadata: {name: chat, generation: 4}\nspec: {targetRefs: [{name: gpu}]}"
OBJECTIVE = "kind: InferenceObjective\nmetadata: {name: urgent}\nspec: {poolRef: {name: gpu}}"
TARGET = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "namespace": "shop", "name": "gpu"}
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _update(snapshot: Snapshot, kind: str) -> StatusUpdate:
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    updates = derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME)
    [found] = [update for update in updates if update.key.kind == kind]
    return found


def _merged(update: StatusUpdate, old: Json) -> Json:
    return merge(update, old, now=NOW, controller_name=CONTROLLER_NAME)


def test_policy_has_an_entry_for_each_target(read: Read) -> None:
    [entry] = _update(read(POLICY), "PickerPolicy").status["ancestors"]

    assert (entry["ancestorRef"], entry["controllerName"]) == (TARGET, CONTROLLER_NAME)
    assert [condition["reason"] for condition in entry["conditions"]] == ["TargetNotFound"]


def test_objective_has_a_condition(read: Read) -> None:
    [condition] = _update(read(OBJECTIVE), "InferenceObjective").status["conditions"]

    assert (condition["type"], condition["status"], condition["reason"]) == ("Accepted", "False", "TargetNotFound")


def test_entries_of_other_controllers_stay(read: Read) -> None:
    foreign = {"ancestorRef": TARGET, "controllerName": "example.com/other", "conditions": []}

    found = _merged(_update(read(POLICY), "PickerPolicy"), {"ancestors": [foreign]})

    assert found["ancestors"][0] == foreign
    assert [entry["controllerName"] for entry in found["ancestors"]] == ["example.com/other", CONTROLLER_NAME]


def test_entry_of_a_former_target_goes(read: Read) -> None:
    former = {"ancestorRef": {**TARGET, "name": "old"}, "controllerName": CONTROLLER_NAME, "conditions": []}

    found = _merged(_update(read(POLICY), "PickerPolicy"), {"ancestors": [former]})

    assert [entry["ancestorRef"]["name"] for entry in found["ancestors"]] == ["gpu"]


def test_condition_keeps_its_time_and_has_the_generation(read: Read) -> None:
    update = _update(read(POLICY), "PickerPolicy")
    first = merge(update, None, now=datetime(2026, 1, 1, tzinfo=UTC), controller_name=CONTROLLER_NAME)

    [condition] = _merged(update, first)["ancestors"][0]["conditions"]

    assert condition["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert condition["observedGeneration"] == 4


def test_policy_without_a_target_is_a_finding(read: Read) -> None:
    [row] = worst_first([_update(read(POLICY), "PickerPolicy")])

    assert row.text == (
        "PickerPolicy shop/chat target shop/gpu: Accepted=False/TargetNotFound: InferencePool shop/gpu does not exist"
    )
