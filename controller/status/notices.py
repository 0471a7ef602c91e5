"""What a person should notice: problems that a status has and did not have before."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.resources.meta import Key
from controller.resources.snapshot import Rejection
from controller.status.legacy import is_marked
from controller.status.rows import worst_first
from controller.status.types import Json, Severity, StatusUpdate


@dataclass(frozen=True)
class Notice:
    """Something to tell about a resource."""

    key: Key
    reason: str
    """One word, from the specification where there is one."""
    message: str


def notices(update: StatusUpdate, before: Json | None, *, controller_name: str) -> tuple[Notice, ...]:
    """One for each place and condition that turned bad since the status was `before`, worst first.

    A problem whose words alone changed is none.
    """
    known = {(place, condition) for place, condition, _ in _errors(update.key, _ours(before or {}, controller_name))}
    return tuple(
        Notice(update.key, condition.partition("/")[2], ": ".join(part for part in (place, condition, message) if part))
        for place, condition, message in _errors(update.key, update.status)
        if (place, condition) not in known
    )


def rejected(key: Key, rejections: Sequence[Rejection]) -> tuple[Notice, ...]:
    """One for an object that cannot be read, with all that is wrong with it. It has no status that could say so."""
    words = "; ".join(f"{item.field}: {item.message}" if item.field else item.message for item in rejections)
    return (Notice(key, "Rejected", words),) if rejections else ()


def _errors(key: Key, status: Json) -> list[tuple[str, str, str]]:
    """(place, condition, message) of each."""
    rows = worst_first([StatusUpdate(key, 0, status)])
    return [(row.place, row.condition, row.message) for row in rows if row.severity is Severity.ERROR]


def _ours(status: Json, controller_name: str) -> Json:
    """A status without the entries of other controllers."""
    kept = dict(status)
    for name in ("parents", "ancestors"):
        if name in kept:
            kept[name] = [item for item in kept[name] or () if item.get("controllerName") == controller_name]
    if "parent" in kept:
        kept["parent"] = [item for item in kept["parent"] or () if is_marked(item, controller=controller_name)]
    return kept
