"""How many large bodies are received at a time.

NGINX has the whole of a body before it asks, and sends it as fast as it is taken. Received side by side, hundreds of
them would be held together. They come no later one after the other, since there is one thread to take them, and wait in
NGINX's files.
"""

from typing import Final, Protocol

LARGE: Final = 64 * 1024
"""Bytes of a body from which on it needs a turn. What one read brings may be more."""
MOST: Final = 8
"""Bodies at a time: 64 MB at most, and enough to keep the thread busy."""


class Taker(Protocol):
    """Who receives a body."""

    def go_on(self) -> None:
        """Its turn has come."""
        ...


class Turns:
    """Who may receive, in the order in which they asked."""

    def __init__(self, most: int = MOST) -> None:
        self._left = most
        self._waiting: dict[Taker, None] = {}

    def ask(self, taker: Taker) -> bool:
        """Whether it is the taker's turn at once; else it is told to go on later."""
        if self._left > 0:
            self._left -= 1
            return True
        self._waiting[taker] = None
        return False

    def leave(self, taker: Taker) -> None:
        """The taker has received its body, or never will. Called once by each that asked."""
        if taker in self._waiting:
            del self._waiting[taker]
        elif self._waiting:
            following = next(iter(self._waiting))
            del self._waiting[following]
            following.go_on()
        else:
            self._left += 1
