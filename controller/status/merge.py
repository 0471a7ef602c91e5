"""A status as it is written: with times, and with what other controllers wrote.

Source: Gateway API, notes for implementors on conditions, RouteStatus.parents, InferencePoolStatus.parents and
PolicyStatus.ancestors.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from controller.status.legacy import placed
from controller.status.types import Json, StatusUpdate
from controller.topology.conditions import (
    ACCEPTED,
    CONFLICTED,
    CONTROLLER,
    IGNORED_FIELDS,
    INSECURE_FRONTEND,
    INVALID_ANNOTATIONS,
    OVERLAPPING_TLS,
    PARTIALLY_INVALID,
    PROGRAMMED,
    RESOLVED_REFS,
)

_OURS: Final = frozenset(
    {
        *(ACCEPTED, CONFLICTED, CONTROLLER, IGNORED_FIELDS, INVALID_ANNOTATIONS, OVERLAPPING_TLS, PARTIALLY_INVALID),
        *(INSECURE_FRONTEND, PROGRAMMED, RESOLVED_REFS),
    }
)
"""Types of conditions that are removed when they hold no longer. Others are not ours to touch."""

_OURS_ALONE: Final = frozenset({"attachedListenerSets"})
"""Fields that are removed when there is nothing to say in them any longer."""


def merge(
    update: StatusUpdate, old: Json | None, *, now: datetime, controller_name: str, latest: int | None = None
) -> Json:
    """The status to write. It equals `old` when nothing changed.

    `now`, with a time zone, becomes the time of conditions whose status changed; others keep theirs. Entries of other
    controllers and conditions of other types stay as they are.

    latest: generation of the object that has `old`; None is that of the update. Conditions that observed a generation
    above the update's are kept as far as there is such a generation: after a backup is restored there is not.
    """
    before = {name: value for name, value in (old or {}).items() if name in update.status or name not in _OURS_ALONE}
    clock = _Clock(update.generation, now, latest=update.generation if latest is None else latest)
    status: Json = {**before, **update.status}
    if "conditions" in update.status:
        status["conditions"] = clock.conditions(update.status["conditions"], before.get("conditions"))
    if "listeners" in update.status:
        status["listeners"] = clock.listeners(update.status["listeners"], before.get("listeners"))
    if "parents" in update.status:
        known = before.get("parents") or []
        status["parents"] = clock.entries(
            update.status["parents"], known, reference="parentRef", controller_name=controller_name
        )
    if "parent" in update.status:
        known = before.get("parent") or []
        status["parent"] = placed(
            update.status["parent"], known, conditions=clock.conditions, controller=controller_name
        )
    if "ancestors" in update.status:
        known = before.get("ancestors") or []
        status["ancestors"] = clock.entries(
            update.status["ancestors"], known, reference="ancestorRef", controller_name=controller_name
        )
    # A list without entries may be missing in what the API server returns.
    return {name: value for name, value in status.items() if value != [] or name in before}


class _Clock:
    """Puts generation and time on conditions."""

    def __init__(self, generation: int, now: datetime, *, latest: int) -> None:
        self._generation = generation
        self._latest = latest
        self._now = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def conditions(self, new: Sequence[Json], old: Sequence[Json] | None) -> list[Json]:
        """Sorted by type."""
        before = {item.get("type"): item for item in old or ()}
        written = [self._condition(item, before.get(item["type"])) for item in new]
        types = {item["type"] for item in written}
        kept = [item for type_, item in before.items() if type_ not in types and type_ not in _OURS]
        return sorted((*written, *kept), key=lambda item: str(item.get("type")))

    def _condition(self, new: Json, old: Json | None) -> Json:
        if old is not None and self._generation < old.get("observedGeneration", 0) <= self._latest:
            return old  # written for a newer resource than the one judged here
        since = self._now
        if old is not None and old.get("status") == new["status"] and old.get("lastTransitionTime"):
            since = old["lastTransitionTime"]
        return {**new, "observedGeneration": self._generation, "lastTransitionTime": since}

    def listeners(self, new: Iterable[Json], old: Sequence[Json] | None) -> list[Json]:
        before = {item.get("name"): item for item in old or ()}
        return [
            {**item, "conditions": self.conditions(item["conditions"], before.get(item["name"], {}).get("conditions"))}
            for item in new
        ]

    def entries(self, new: Iterable[Json], old: Sequence[Json], *, reference: str, controller_name: str) -> list[Json]:
        """Parents or ancestors, named by `reference`: each where it was, then those that were not there.

        Two controllers that both put theirs last would write the list in turns for ever.
        """
        pending = list(new)
        written = []
        for item in old:
            ours = item.get("controllerName") == controller_name
            match = next((entry for entry in pending if entry[reference] == item.get(reference)), None)
            if not ours:
                written.append(item)
            elif match is not None:
                pending.remove(match)
                written.append({**match, "conditions": self.conditions(match["conditions"], item.get("conditions"))})
        return [*written, *({**item, "conditions": self.conditions(item["conditions"], None)} for item in pending)]
