"""`status.parent` of InferencePool v1alpha2, which has no field for the name of a controller."""

from datetime import UTC, datetime
from typing import Any

from controller.resources.meta import Key
from controller.status.merge import merge
from controller.status.types import StatusUpdate

US, THEM = "infergate.dev/gateway-controller", "example.com/other"
EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
Status = dict[str, Any]  # in Kubernetes' shape

NOBODY = {
    "parentRef": {"kind": "Status", "name": "default"},
    "conditions": [
        {
            "type": "Accepted",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ],
}


def _entry(name: str, *, controller: str = US) -> Status:
    return {
        "parentRef": {"kind": "Gateway", "namespace": "shop", "name": name},
        "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
            {"type": "infergate.dev/Controller", "status": "True", "reason": "Controller", "message": controller},
        ],
    }


def _merge(*entries: Status, old: Status | None, now: datetime = LATER) -> Status:
    key = Key("inference.networking.x-k8s.io", "InferencePool", "shop", "llm")
    return merge(StatusUpdate(key, 1, {"parent": list(entries)}), old, now=now, controller_name=US)


def _names(status: Status) -> list[str]:
    return [item["parentRef"]["name"] for item in status["parent"]]


def test_first_entry_takes_the_place_of_the_one_that_says_nobody() -> None:
    assert _names(_merge(_entry("edge"), old={"parent": [NOBODY]})) == ["edge"]


def test_pool_that_nobody_has_stays_as_it_is() -> None:
    assert _merge(old={"parent": [NOBODY]}) == {"parent": [NOBODY]}
    assert _merge(old=None) == {}


def test_last_entry_that_goes_leaves_the_one_that_says_nobody() -> None:
    old = _merge(_entry("edge"), old=None)
    assert _merge(old=old) == {"parent": [NOBODY]}


def test_entries_of_others_stay_and_ours_of_before_go() -> None:
    theirs = {"parentRef": {"kind": "Gateway", "namespace": "shop", "name": "theirs"}, "conditions": []}
    old = {"parent": [theirs, _entry("gone"), _entry("foreign", controller=THEM), _entry("edge")]}
    assert _names(_merge(_entry("edge"), old=old)) == ["theirs", "foreign", "edge"]


def test_reference_that_the_server_completed_is_the_same() -> None:
    old = _merge(_entry("edge"), old=None, now=EARLIER)
    old["parent"][0]["parentRef"]["group"] = "gateway.networking.k8s.io"
    assert _merge(_entry("edge"), old=old) == old
