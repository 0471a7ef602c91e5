"""What a derivation leaves to the next: the statuses of routes that are the same.

Reports of instances come more often than resources change, and say nothing of most routes.
"""

from dataclasses import dataclass, field

from controller.remembered import Remembered
from controller.status.types import StatusUpdate


@dataclass
class Memory:
    """Of one sequence of derivations with the same controller name."""

    routes: Remembered[StatusUpdate] = field(default_factory=Remembered)
    abandoned: Remembered[tuple[StatusUpdate, ...]] = field(default_factory=Remembered)

    def turn(self) -> None:
        """A derivation begins."""
        self.routes.turn()
        self.abandoned.turn()
