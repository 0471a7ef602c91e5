"""Where resources come from."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from controller.resources.snapshot import Snapshot


@dataclass(frozen=True)
class Change:
    """Why there is another snapshot."""

    sources: tuple[str, ...]
    """What was added, changed or removed, sorted: files relative to the directory, all of them the first time; of a
    cluster `Kind namespace/name` of the resources, at most ten and `N more`, and none the first time."""
    descriptions: tuple[str, ...]
    """What is different, in words, at most about ten lines; empty the first time."""
    detected_at: float
    """When the first sign of the change was seen, in seconds of the monotonic clock."""


class Provider(Protocol):
    """Gives a snapshot at once, and another after each change. What happens in between is gathered into one."""

    def snapshots(self) -> AsyncIterator[tuple[Snapshot, Change]]:
        """Raises InputUnreadable when there is nothing to read at the start."""
        ...
