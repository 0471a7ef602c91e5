"""Which part of a merged status is ours to apply, and where a status is a list that controllers share.

Source: x-kubernetes-list-type in the definitions of Gateway API 1.6.1 and Inference Extension 1.6.0. `conditions`,
`listeners` and `supportedFeatures` are maps whose entries have owners. `parents` and `ancestors` are atomic: whoever
writes one entry writes all, so they are read, modified and written as a whole, as is `parent` of
InferencePool v1alpha2.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from controller.resources.meta import Key
from controller.status.types import Json, StatusUpdate

_SHARED: Final = ("parents", "parent", "ancestors")


def is_shared(update: StatusUpdate) -> bool:
    """Whether the status is a list that other controllers have entries in."""
    return any(name in update.status for name in _SHARED)


def withdrawal(update: StatusUpdate) -> StatusUpdate | None:
    """An update that takes our entries out of a shared list; None for statuses that are one controller's alone."""
    lists: Json = {name: [] for name in _SHARED if name in update.status}
    return StatusUpdate(update.key, update.generation, lists) if lists else None


def owned(update: StatusUpdate, merged: Json) -> Json:
    """The fields of a merged status that `update` speaks of, without conditions that others wrote."""
    status = {name: merged[name] for name in update.status if name in merged}
    if "conditions" in status:
        status["conditions"] = _of_types(status["conditions"], like=update.status["conditions"])
    if "listeners" in status:
        before = {item["name"]: item["conditions"] for item in update.status["listeners"]}
        status["listeners"] = [
            {**item, "conditions": _of_types(item["conditions"], like=before[item["name"]])}
            for item in status["listeners"]
        ]
    return status


def whole(update: StatusUpdate, merged: Json) -> Json:
    """The same fields with everything in them, to be written over what is there."""
    return {name: merged.get(name, []) for name in update.status}


def gone(before: Iterable[StatusUpdate], *, now: Iterable[Key]) -> tuple[StatusUpdate, ...]:
    """Withdrawals for resources that had a status of ours and are ours no longer."""
    kept = set(now)
    found = (withdrawal(item) for item in before if item.key not in kept)
    return tuple(item for item in found if item is not None)


def _of_types(conditions: Sequence[Json], *, like: Sequence[Json]) -> list[Json]:
    types = {item["type"] for item in like}
    return [item for item in conditions if item["type"] in types]
