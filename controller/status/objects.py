"""Resources with the status that would be written in a cluster, as a user prints them."""

from collections.abc import Sequence
from datetime import datetime

from controller.resources.meta import Resource
from controller.resources.snapshot import Snapshot
from controller.status.merge import merge
from controller.status.types import Json, StatusUpdate


def status_list(updates: Sequence[StatusUpdate], *, snapshot: Snapshot, now: datetime, controller_name: str) -> Json:
    """A Kubernetes `List` of the resources that have a status of ours, in the order of `updates`."""
    resources = {item.key: item for item in snapshot.resources}
    items = []
    for update in updates:
        resource = resources[update.key]
        status = merge(update, resource.status, now=now, controller_name=controller_name)
        items.append({**_document(resource), "status": status})
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _document(resource: Resource) -> Json:
    """The resource as it was read, without fields that only have their default."""
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"status"})
