"""Large messages of pickers that come at the same time: a few may, the others wait for their turn.

A message is kept until it is whole. What a picker sends ahead on a stream is bounded by the stream's window; a message
that is larger gets more of it only when there is room for all of it, so that those which have begun can end.
"""

from collections.abc import Callable
from typing import Final

MOST_TOGETHER: Final = 48 * 1024 * 1024
"""Bytes: three of the largest messages."""
LARGE: Final = 512 * 1024
"""Bytes of a message, above which it needs a turn: what a picker may send ahead anyhow."""


class Turns:
    """Room for large messages, given in the order of asking."""

    def __init__(self, left: int = MOST_TOGETHER) -> None:
        """`left` are bytes; a message that is larger than all of them can never come."""
        self._left = left
        self._given: dict[object, int] = {}
        self._waiting: dict[object, tuple[int, Callable[[], None]]] = {}

    def ask(self, who: object, size: int, *, then: Callable[[], None]) -> bool:
        """Whether there is room for a message of so many bytes. If not, `then` is called once there is."""
        if who not in self._given and who not in self._waiting:
            self._waiting[who] = size, then
            self._go_on()
        return who in self._given

    def end(self, who: object) -> None:
        """The message came, or none will."""
        self._waiting.pop(who, None)
        self._left += self._given.pop(who, 0)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting:
            who, (size, then) = next(iter(self._waiting.items()))
            if size > self._left:
                return
            del self._waiting[who]
            self._given[who] = size
            self._left -= size
            then()
