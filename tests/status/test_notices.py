from typing import Any

from controller.resources.meta import Key
from controller.resources.snapshot import Rejection
from controller.status.notices import Notice, notices, rejected
from controller.status.types import StatusUpdate

US = "infergate.dev/gateway-controller"
ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "demo", "chat")
Json = dict[str, Any]  # a piece of a status


def _status(*, controller: str = US, **condition: str) -> Json:
    entry = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", **condition}
    return {"parents": [{"parentRef": {"name": "edge"}, "controllerName": controller, "conditions": [entry]}]}


BAD = _status(status="False", reason="NoMatchingParent", message="no listener")


def _found(now: Json, before: Json | None) -> list[str]:
    update = StatusUpdate(ROUTE, 1, now)
    return [item.reason for item in notices(update, before, controller_name=US)]


def test_problem_that_was_not_there_is_a_notice() -> None:
    assert _found(BAD, None) == ["NoMatchingParent"]
    assert _found(BAD, _status()) == ["NoMatchingParent"]


def test_problem_that_was_there_is_none_whatever_its_words() -> None:
    assert _found(BAD, _status(status="False", reason="NoMatchingParent", message="other words")) == []


def test_same_problem_of_another_controller_hides_nothing() -> None:
    before = _status(controller="example.com/other", status="False", reason="NoMatchingParent")
    assert _found(BAD, before) == ["NoMatchingParent"]


def test_entry_of_another_controller_without_conditions_is_no_obstacle() -> None:
    before = {"parents": [{"parentRef": {"name": "edge"}, "controllerName": "example.com/other"}]}
    assert _found(BAD, before) == ["NoMatchingParent"]


def test_what_is_well_or_pending_is_no_notice() -> None:
    assert _found(_status(), BAD) == []
    assert _found(_status(type="Programmed", status="Unknown", reason="Pending", message="not yet"), None) == []


def test_object_that_cannot_be_read_is_one_notice() -> None:
    flaws = [Rejection("/path", "HTTPRoute demo/chat", field, "unknown field") for field in ("spec.a", "spec.b")]
    assert rejected(ROUTE, flaws) == (Notice(ROUTE, "Rejected", "spec.a: unknown field; spec.b: unknown field"),)
    assert rejected(ROUTE, []) == ()
