"""How late an event loop is: what it does in real time is as wrong as that."""

import asyncio
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from tools.bench.samples import percentile

_EVERY: Final = 0.02


@dataclass
class Lateness:
    """A timer that goes off fifty times a second, and how late it was each time."""

    _found: list[float] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """In the running loop."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def p99(self) -> float:
        """Seconds; 0 before the timer went off."""
        return percentile(self._found, 0.99) if self._found else 0.0

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_EVERY, self._note, loop, perf_counter() + _EVERY)

    def _note(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._found.append(max(0.0, perf_counter() - due))
        self._arm(loop)
