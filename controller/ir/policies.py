"""How long and how often a rule tries, in a proxy's words.

Each type here has its resolver in `topology/attempts.py` and one template in `templates/policies/`, named after it.
"""

from dataclasses import dataclass
from typing import Final

WITHOUT_END: Final = 20 * 86_400.0
"""Seconds that stand for no timeout: nginx's timers are numbers of 31 bits of milliseconds, 24 days."""


@dataclass(frozen=True)
class Timeouts:
    """Of the requests of a rule, in seconds."""

    silence: float
    """Until the first byte of a backend's answer, and between two pieces of it."""
    deadline: float | None = None
    """Until the end of the answer, whatever was tried. None leaves answers that go on alone."""

    @property
    def connect(self) -> float:
        """Until a connection stands: what the network needs, if that is less."""
        return min(2.0, self.silence)
