"""What an instance has come to: written by who follows the control plane, read by reports, probes and metrics."""

import asyncio
from dataclasses import dataclass, field

import msgspec

from controller.wire import Refusal, Statement


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

    @property
    def is_serving(self) -> bool:
        """Whether the newest version is live."""
        return self.statement.live != "" and self.statement.live == self.statement.version

    def had(self, *, version: str, etag: str) -> None:
        """A delivery came. What was said of an earlier version does not hold for another."""
        statement = msgspec.structs.replace(self.statement, version=version, etag=etag)
        if version != self.statement.version:
            statement = msgspec.structs.replace(statement, refusal=None, problem="", seconds=0.0)
        self._say(statement)

    def serves(self, version: str, *, seconds: float) -> None:
        """A version is live."""
        self._judge(version=version, live=version, seconds=seconds)

    def refuses(self, version: str, refusal: Refusal | None, *, seconds: float) -> None:
        """nginx did not take a version, and serves what it served before."""
        self._judge(version=version, live=self.statement.live, seconds=seconds, refusal=refusal)

    def fails(self, problem: str) -> None:
        """The newest version could not be tried."""
        self._say(msgspec.structs.replace(self.statement, problem=problem))

    def leave(self) -> None:
        """This instance ends, whatever becomes of versions meanwhile."""
        self._say(msgspec.structs.replace(self.statement, is_leaving=True))

    def _judge(self, *, version: str, live: str, seconds: float, refusal: Refusal | None = None) -> None:
        self._say(
            msgspec.structs.replace(
                self.statement, version=version, live=live, seconds=seconds, refusal=refusal, problem=""
            )
        )

    def _say(self, statement: Statement) -> None:
        if statement != self.statement:
            self.statement = statement
            self.news.set()
