"""Room for what is large and comes at the same time: a few may, the others wait for their turn."""

from collections.abc import Callable


class Turns:
    """Room that is given in the order of asking."""

    def __init__(self, left: int) -> None:
        """What is larger than all that is `left` can never come."""
        self._left = left
        self._given: dict[object, int] = {}
        self._waiting: dict[object, tuple[int, Callable[[], None]]] = {}

    def ask(self, who: object, size: int, *, then: Callable[[], None]) -> bool:
        """Whether there is room for so much. `then` is called once there is, at the first time of asking too."""
        if who not in self._given and who not in self._waiting:
            self._waiting[who] = size, then
            self._go_on()
        return who in self._given

    def end(self, who: object) -> None:
        """It came, or will not."""
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
