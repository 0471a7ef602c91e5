"""What an instance has come to: written by who follows the control plane, read by reports, probes and metrics."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from controller.wire import Statement


@dataclass
class Standing:
    """The newest statement, and what is under way."""

    statement: Statement = field(default_factory=lambda: Statement(version="", live=""))
    applying: str = ""
    """The version that is being brought up; empty when none is."""
    looked_at: float = 0.0
    """Loop time at which who follows the control plane was last seen at work."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the statement is another one."""

    def say(self, statement: Statement) -> None:
        """Have something new to say."""
        if statement != self.statement:
            self.statement = statement
            self.news.set()

    def leave(self) -> None:
        """Say that this instance ends."""
        self.say(msgspec.structs.replace(self.statement, is_leaving=True))
