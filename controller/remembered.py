"""Results of one turn of a loop, for the next: what is made of the same objects is not made again."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Keeps what was asked for in this turn and in the one before, so that what is gone is forgotten.

    What something is made of is compared by identity: objects of a snapshot are never changed, and stay the same ones
    from snapshot to snapshot while nobody changes them.
    """

    def __init__(self) -> None:
        self._before: dict[Hashable, tuple[tuple[object, ...], T]] = {}
        self._now: dict[Hashable, tuple[tuple[object, ...], T]] = {}

    def turn(self) -> None:
        """A new turn begins."""
        self._before, self._now = self._now, {}

    def get(self, key: Hashable, parts: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gave when it was last asked under this key for the same parts, or gives now."""
        found = self._now.get(key) or self._before.get(key)
        if found is None or not all(old is new for old, new in zip(found[0], parts, strict=True)):
            found = (parts, make())
        self._now[key] = found
        return found[1]
