from controller.resources.meta import Key
from controller.status.apply import gone, is_shared, owned, whole
from controller.status.types import StatusUpdate

GATEWAY = Key("gateway.networking.k8s.io", "Gateway", "demo", "edge")
ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "demo", "chat")
OURS = {"type": "Accepted", "status": "True"}
THEIRS = {"type": "example.com/Own", "status": "True"}


def test_conditions_of_others_are_not_applied() -> None:
    listener = {"name": "http", "conditions": [OURS]}
    update = StatusUpdate(GATEWAY, 1, {"conditions": [OURS], "listeners": [listener], "addresses": []})
    merged = {
        "conditions": [OURS, THEIRS],
        "listeners": [{"name": "http", "conditions": [OURS, THEIRS]}],
        "attachedListenerSets": 1,
    }
    assert owned(update, merged) == {"conditions": [OURS], "listeners": [listener]}


def test_what_is_written_over_holds_everything_of_its_fields() -> None:
    update = StatusUpdate(GATEWAY, 1, {"conditions": [OURS], "addresses": []})
    merged = {"conditions": [OURS, THEIRS], "attachedListenerSets": 1}
    assert whole(update, merged) == {"conditions": [OURS, THEIRS], "addresses": []}


def test_only_statuses_with_entries_are_shared_and_withdrawn() -> None:
    gateway = StatusUpdate(GATEWAY, 1, {"conditions": [OURS]})
    route = StatusUpdate(ROUTE, 3, {"parents": [{"parentRef": {"name": "edge"}}]})
    assert (is_shared(gateway), is_shared(route)) == (False, True)
    assert gone([gateway, route], now=[]) == (StatusUpdate(ROUTE, 3, {"parents": []}),)
    assert gone([gateway, route], now=[ROUTE]) == ()
