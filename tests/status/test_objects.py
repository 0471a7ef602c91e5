"""Resources with their status, as a user prints them."""

from collections.abc import Callable
from datetime import UTC, datetime

import yaml

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.status.derive import derive
from controller.status.objects import status_list
from controller.topology.build import build

Read = Callable[..., Snapshot]


def test_resources_are_listed_as_written_with_their_status(read: Read) -> None:
    snapshot = read("kind: HTTPRoute\nmetadata: {name: cart}\nspec: {parentRefs: [{name: web}]}")
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    updates = derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = status_list(updates, snapshot=snapshot, now=now, controller_name=CONTROLLER_NAME)

    assert (found["apiVersion"], found["kind"]) == ("v1", "List")
    assert [item["kind"] for item in found["items"]] == ["Gateway", "GatewayClass", "HTTPRoute"]
    route = found["items"][2]
    assert route["spec"] == {"parentRefs": [{"name": "web"}]}
    assert route["status"]["parents"][0]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert yaml.safe_load(yaml.safe_dump(found)) == found
