"""A status with its times and with what others wrote."""

from datetime import UTC, datetime
from typing import Any

from controller.resources.meta import Key
from controller.status.merge import merge
from controller.status.types import StatusUpdate

US = "infergate.dev/gateway-controller"
THEM = "example.com/other"
EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
Status = dict[str, Any]  # in Kubernetes' shape


def _condition(type_: str, status: str = "True", *, message: str = "") -> Status:
    return {"type": type_, "status": status, "reason": "R", "message": message}


def _merge(
    status: Status, old: Status | None, *, now: datetime = LATER, generation: int = 2, latest: int | None = None
) -> Status:
    update = StatusUpdate(Key("g", "K", "shop", "a"), generation, status)
    return merge(update, old, now=now, controller_name=US, latest=latest)


def test_condition_gets_generation_and_time() -> None:
    assert _merge({"conditions": [_condition("Accepted")]}, None)["conditions"] == [
        {**_condition("Accepted"), "observedGeneration": 2, "lastTransitionTime": "2026-01-02T00:00:00Z"}
    ]


def test_unchanged_status_is_equal_to_the_old_one() -> None:
    status = {
        "conditions": [_condition("Accepted")],
        "listeners": [{"name": "a", "conditions": [_condition("Programmed")]}],
        "parents": [{"parentRef": {"name": "p"}, "controllerName": US, "conditions": [_condition("Accepted")]}],
    }
    old = _merge(status, None, now=EARLIER)
    assert _merge(status, old) == old


def test_time_changes_with_the_status_only() -> None:
    old = _merge({"conditions": [_condition("Accepted"), _condition("Programmed")]}, None, now=EARLIER)
    status = {"conditions": [_condition("Accepted", message="more"), _condition("Programmed", "False")]}
    accepted, programmed = _merge(status, old, generation=3)["conditions"]

    assert (accepted["message"], accepted["observedGeneration"]) == ("more", 3)
    assert accepted["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert programmed["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_condition_of_a_newer_generation_stays() -> None:
    old = _merge({"conditions": [_condition("Accepted", "False")]}, None, generation=9)
    assert _merge({"conditions": [_condition("Accepted")]}, old, latest=9) == old


def test_condition_of_a_generation_that_there_is_not_is_overwritten() -> None:
    old = _merge({"conditions": [_condition("Accepted", "False")]}, None, generation=9)
    wanted = {"conditions": [_condition("Accepted")]}

    assert _merge(wanted, old, latest=3) == _merge(wanted, None)
    assert _merge(wanted, old) == _merge(wanted, None)


def test_conditions_of_other_types_stay_and_ours_go() -> None:
    old = {"conditions": [_condition("example.com/Own"), _condition("PartiallyInvalid")]}
    found = _merge({"conditions": [_condition("Accepted")]}, old)["conditions"]

    assert [item["type"] for item in found] == ["Accepted", "example.com/Own"]


def test_parents_of_other_controllers_stay() -> None:
    theirs = {"parentRef": {"name": "x"}, "controllerName": THEM, "conditions": [_condition("Accepted", "False")]}
    ours = {"parentRef": {"name": "p"}, "controllerName": US, "conditions": []}
    old = {"parents": [ours, theirs]}

    assert _merge({"parents": []}, old) == {"parents": [theirs]}
    assert _merge({"parents": [ours]}, old) == {"parents": [ours, theirs]}


def test_fields_of_others_stay() -> None:
    assert _merge({"conditions": []}, {"example": 1}) == {"example": 1}


def test_number_of_listener_sets_goes_when_there_is_nothing_to_say() -> None:
    assert _merge({"attachedListenerSets": 0}, {"attachedListenerSets": 1}) == {"attachedListenerSets": 0}
    assert _merge({"addresses": []}, {"attachedListenerSets": 1}) == {}


def test_empty_status_of_a_resource_without_any_stays_empty() -> None:
    assert _merge({"parents": []}, None) == {}
