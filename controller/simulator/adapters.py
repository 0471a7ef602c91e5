"""LoRA slots: which adapters are loaded, and which of those are in use."""

from collections import Counter, OrderedDict


class Adapters:
    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._users: Counter[str] = Counter()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Longest unused first."""
        return tuple(self._loaded)

    def can_take(self, adapter: str) -> bool:
        """Whether a sequence with this adapter could run beside those that do."""
        return adapter in self._users or len(self._users) < self._slots

    def take(self, adapter: str) -> bool:
        """Use an adapter that `can_take` allows; True if it has to be loaded, displacing the one longest unused."""
        is_cold = adapter not in self._loaded
        if is_cold and len(self._loaded) == self._slots:
            del self._loaded[next(name for name in self._loaded if name not in self._users)]
        self._loaded[adapter] = None
        self._loaded.move_to_end(adapter)
        self._users[adapter] += 1
        return is_cold

    def give_back(self, adapter: str) -> None:
        self._users[adapter] -= 1
        if not self._users[adapter]:
            del self._users[adapter]
