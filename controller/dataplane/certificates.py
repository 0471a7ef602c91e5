"""Keeps the control plane's serving certificate valid, and what instances trust in step with it.

Replicas of the control plane share the authority through a store. Each signs a certificate of its own, so that no
serving key travels.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec

from controller.agent.state import replace_file
from controller.dataplane.pki import Authority, Pair, advance, issue, must_be_issued
from controller.errors import InfergateError, StateUnusable

log = logging.getLogger(__name__)

_LOOK_EVERY: Final = 600.0
"""Seconds between two looks: a certificate is replaced ten days before it expires, and an authority a day after it was
announced."""
_RETRY: Final = 10.0
"""Seconds after which a store that failed is asked again."""


class AuthorityStore(Protocol):
    """Where the authority is kept, and where instances find whom to trust."""

    async def load(self) -> Authority | None:
        """None when there is none yet. Raises one of our exceptions when it cannot be read."""
        ...

    async def replace(self, before: Authority | None, after: Authority) -> Authority:
        """Keep `after` if `before` is still what is kept, and publish its `trusted`.

        Returns what is kept then, which is another replica's when that was first. Raises one of our exceptions when it
        cannot be written.
        """
        ...


@dataclass(frozen=True)
class FileStore:
    """An authority in a directory: `authority.json`, readable for its owner, and `ca.crt` for instances."""

    directory: Path

    async def load(self) -> Authority | None:
        """Raises StateUnusable when the file cannot be read."""
        path = self.directory / "authority.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Authority)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateUnusable(f"{path} cannot be read: {error}") from error

    async def replace(self, before: Authority | None, after: Authority) -> Authority:
        """Raises StateUnusable when a file cannot be written."""
        kept = await self.load()
        if kept is not None and kept != before:
            return kept
        replace_file(self.directory / "ca.crt", after.trusted)
        replace_file(self.directory / "authority.json", msgspec.json.encode(after))
        return after


@dataclass
class Certificates:
    """The serving certificate of one replica."""

    store: AuthorityStore
    names: Sequence[str]
    """DNS names under which instances ask."""
    use: Callable[[Pair], None]
    """Told of each new certificate."""
    clock: Callable[[], datetime]
    serving: Pair | None = None

    async def look(self) -> None:
        """Replace what is due. Raises what the store raises."""
        now = self.clock()
        kept = await self.store.load()
        wanted = advance(kept, now=now)
        authority = kept if kept is not None and wanted == kept else await self.store.replace(kept, wanted)
        if must_be_issued(self.serving, authority.signing, self.names, now=now):
            self.serving = issue(authority.signing, self.names, now=now)
            self.use(self.serving)
            log.info("serving certificate issued", extra={"names": ", ".join(self.names)})

    async def keep(self, *, every: float = _LOOK_EVERY) -> None:
        """Look again and again until cancelled. Call `look` first: it says whether there is a certificate at all."""
        pause = every
        while True:
            await asyncio.sleep(pause)
            pause = every
            try:
                await self.look()
            except InfergateError as problem:
                log.error("serving certificate cannot be looked after", extra={"problem": str(problem)})
                pause = min(every, _RETRY)
