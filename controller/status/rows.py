"""Findings of all statuses, worst first."""

from collections.abc import Iterable, Sequence
from typing import Final

from controller.resources.snapshot import Rejection
from controller.status.types import Json, Row, Severity, StatusUpdate
from controller.topology.conditions import (
    ACCEPTED,
    CONFLICTED,
    IGNORED_FIELDS,
    INSECURE_FRONTEND,
    INVALID_ANNOTATIONS,
    OVERLAPPING_TLS,
    PARTIALLY_INVALID,
    PROGRAMMED,
    RESOLVED_REFS,
)

_GOOD_WHEN: Final = {ACCEPTED: "True", CONFLICTED: "False", PROGRAMMED: "True", RESOLVED_REFS: "True"}
_WHILE_TRUE: Final = {
    IGNORED_FIELDS: Severity.WARNING,
    INSECURE_FRONTEND: Severity.WARNING,
    INVALID_ANNOTATIONS: Severity.WARNING,
    OVERLAPPING_TLS: Severity.WARNING,
    PARTIALLY_INVALID: Severity.ERROR,
}
_SUMMARIES: Final = ("ListenersNotResolved", "ListenersNotValid")
"""Reasons on a Gateway that only repeat what its listeners say."""


def worst_first(updates: Iterable[StatusUpdate], *, rejections: Sequence[Rejection] = ()) -> tuple[Row, ...]:
    """Every finding, and one row for each resource without any.

    Sorted by severity, the worst first, then by kind, name and place.
    """
    rows = [Row(Severity.ERROR, "", item.subject, "", "Rejected", _rejection(item)) for item in rejections]
    for update in updates:
        found = [row for place, conditions in _places(update.status) for row in _rows(update, place, conditions)]
        rows += found or [Row(Severity.FINE, update.key.kind, update.key.path, "", "", "")]
    return tuple(sorted(rows, key=lambda row: (-row.severity, row.kind, row.name, row.place, row.condition)))


def _rejection(item: Rejection) -> str:
    return ": ".join(part for part in (item.source, item.field, item.message) if part)


def _places(status: Json) -> list[tuple[str, list[Json]]]:
    """Conditions by where in the status they stand."""
    places = [("", status.get("conditions", []))]
    places += [(f"listener {item['name']}", item["conditions"]) for item in status.get("listeners", [])]
    places += [(f"parent {_parent(item['parentRef'])}", item["conditions"]) for item in status.get("parents", [])]
    places += [(f"parent {_parent(item['parentRef'])}", item["conditions"]) for item in status.get("parent", [])]
    places += [(f"target {_parent(item['ancestorRef'])}", item["conditions"]) for item in status.get("ancestors", [])]
    return places


def _parent(reference: Json) -> str:
    name = "/".join(str(reference[part]) for part in ("namespace", "name") if part in reference)
    return f"{name} {reference['sectionName']}" if "sectionName" in reference else name


def _rows(update: StatusUpdate, place: str, conditions: Sequence[Json]) -> list[Row]:
    rows = []
    above = [item for item in update.status.get("conditions", []) if item["reason"] not in _SUMMARIES]
    for item in conditions:
        severity = _severity(item)
        if severity is not Severity.FINE and not _repeats(item, (*conditions, *above)):
            condition = f"{item['type']}={item['status']}/{item['reason']}"
            rows.append(Row(severity, update.key.kind, update.key.path, place, condition, item["message"]))
    return rows


def _severity(condition: Json) -> Severity:
    good = _GOOD_WHEN.get(condition["type"])
    if good is None:
        return _WHILE_TRUE.get(condition["type"], Severity.FINE)
    if condition["status"] == "Unknown":
        return Severity.PENDING
    if condition["status"] != good:
        return Severity.ERROR
    return Severity.WARNING if condition["message"] else Severity.FINE


def _repeats(condition: Json, others: Sequence[Json]) -> bool:
    """Whether a condition only says what another one says better."""
    if condition["type"] == PROGRAMMED:
        worse = (item for item in others if item["type"] in (ACCEPTED, CONFLICTED, RESOLVED_REFS))
        return any(_severity(item) is Severity.ERROR for item in worse)
    if condition["type"] == ACCEPTED:
        conflicted = any(item["type"] == CONFLICTED and item["status"] == "True" for item in others)
        return conflicted or condition["reason"] in _SUMMARIES
    return condition["reason"] in _SUMMARIES
