"""`status.parent` of InferencePool v1alpha2: a list that several controllers write, without a field for their names.

An entry of ours has a condition that says so. A list without entries holds one that says that nobody has the pool.

Source: the definition of inferencepools.inference.networking.x-k8s.io, status.parent.
"""

from collections.abc import Callable, Sequence
from typing import Final

from controller.status.types import Json
from controller.topology.conditions import ACCEPTED, CONTROLLER

Conditions = Callable[[Sequence[Json], Sequence[Json] | None], list[Json]]
"""New conditions with their times, from those and the ones that are there."""

_NOBODY: Final = {"kind": "Status", "name": "default"}
_PENDING: Final = {
    "type": ACCEPTED,
    "status": "Unknown",
    "reason": "Pending",
    "message": "Waiting for controller",
    "lastTransitionTime": "1970-01-01T00:00:00Z",
}


def is_marked(entry: Json, *, controller: str) -> bool:
    """Whether an entry is of this controller."""
    return any(
        item.get("type") == CONTROLLER and item.get("message") == controller for item in entry.get("conditions") or ()
    )


def placed(new: Sequence[Json], old: Sequence[Json], *, conditions: Conditions, controller: str) -> list[Json]:
    """The list to write: each entry where it was, then those that were not there; those of others stay."""
    pending = list(new)
    written: list[Json] = []
    for item in old:
        match = next((entry for entry in pending if _names(entry) == _names(item)), None)
        if match is not None:
            pending.remove(match)
            # An API server may have filled in more of the reference.
            written.append({**item, "conditions": conditions(match["conditions"], item.get("conditions"))})
        elif not is_marked(item, controller=controller) and not _is_nobody(item):
            written.append(item)
    written += [{**item, "conditions": conditions(item["conditions"], None)} for item in pending]
    if written or not old:
        return written
    return [next((item for item in old if _is_nobody(item)), {"parentRef": _NOBODY, "conditions": [_PENDING]})]


def _names(entry: Json) -> tuple[str, str, str]:
    reference = entry.get("parentRef") or {}
    return (reference.get("kind") or "Gateway", reference.get("namespace") or "", reference.get("name") or "")


def _is_nobody(entry: Json) -> bool:
    return _names(entry) == (_NOBODY["kind"], "", _NOBODY["name"])
