"""Whether one instance is ready, and whether it is healthy."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from controller.agent.standing import Standing

_LONGEST_TURN: Final = 180.0
"""Seconds: to wait for news takes 30 at most, to apply a bundle 60 when all of its waits run out."""


class DataPlane(Protocol):
    """nginx, as far as probes look at it."""

    @property
    def is_nginx_wanted(self) -> bool: ...
    @property
    def nginx_pid(self) -> int | None: ...
    async def version(self) -> str | None: ...


@dataclass(frozen=True)
class Judge:
    """Judges one instance."""

    data_plane: DataPlane
    standing: Standing

    async def why_not_ready(self) -> str:
        """Empty when nginx serves what it was told to, the version before a refused one included."""
        statement, applying = self.standing.statement, self.standing.applying
        if statement.is_leaving:
            return "the instance ends"
        if not statement.live:
            return f"no version is served yet: {statement.problem or statement.refusal or 'none came'}"
        found = await self.data_plane.version()
        # Old workers answer until the new ones are there.
        return "" if found and found in (statement.live, applying) else f"nginx serves {found or 'nothing'}"

    async def why_not_healthy(self) -> str:
        """Empty as long as a restart would better nothing."""
        if self.standing.statement.is_leaving:
            return ""
        if asyncio.get_running_loop().time() - self.standing.looked_at > _LONGEST_TURN:
            return "the agent is stuck"
        if not self.data_plane.is_nginx_wanted:
            return ""
        if self.data_plane.nginx_pid is None:
            return "nginx does not run"
        return "" if await self.data_plane.version() is not None else "nginx does not answer"
