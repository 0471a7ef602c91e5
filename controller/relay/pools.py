"""The pools that the relay serves, from the pools file."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from controller.headers import session_id
from controller.pools import Pool, decode_pools
from controller.relay.watching import Place

log = logging.getLogger(__name__)

EVERY: Final = 0.1
"""Seconds between two looks at the file; one look is a system call."""
LEAVING: Final = 5.0
"""Seconds for which an endpoint that left its pool may be named: pickers hear of it later, and it still serves."""


@dataclass(frozen=True)
class RelayPool:
    """A pool with an external picker."""

    name: str
    endpoints: frozenset[str]
    """`ip:port`."""
    places: tuple[Place, ...]
    """Of its picker."""
    speaks_http2: bool
    reads_usage: bool = False
    """Whether the tokens of answers are read where the picker does not say."""

    @cached_property
    def by_session(self) -> Mapping[str, str]:
        """Endpoints by what the tokens of sessions say of them."""
        return {session_id(self.name, address): address for address in self.endpoints}


class PoolTable:
    """Pools by name. `changed` is set anew with each change."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._left: dict[tuple[str, str], float] = {}
        """When endpoints left their pools, by pool and address."""
        self._seen: tuple[int, int, int] | None = None
        self.etag: str | None = None
        """Of what was read last; None until something was."""
        self.pools: Mapping[str, RelayPool] = {}
        self.changed = asyncio.Event()

    def look(self) -> bool:
        """Read the file where it is another one. Returns whether it was. One that cannot be read changes nothing."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return False
            pools = decode_pools(self._path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.error("pools cannot be read", extra={"file": str(self._path), "reason": str(error)})
            return False
        self._seen = seen
        self.etag = pools.etag
        before, now = self.pools, self._clock()
        self.pools = {pool.name: _pool(pool) for pool in pools.pools if pool.external is not None}
        self._left = {place: since for place, since in self._left.items() if now - since < LEAVING}
        for name, pool in self.pools.items():
            known = before[name].endpoints if name in before else frozenset[str]()
            self._left.update({(name, address): now for address in known - pool.endpoints})
        self.changed.set()
        self.changed = asyncio.Event()
        return True

    def leaving(self, pool: str) -> list[str]:
        """Endpoints that left a pool a moment ago."""
        oldest = self._clock() - LEAVING
        return [address for (name, address), since in self._left.items() if name == pool and since > oldest]


def _pool(pool: Pool) -> RelayPool:
    picker = pool.external
    assert picker is not None
    return RelayPool(
        name=pool.name,
        endpoints=frozenset(endpoint.address for endpoint in pool.endpoints),
        places=tuple(Place(address, picker.authority, picker.tls) for address in picker.addresses),
        speaks_http2=pool.speaks_http2,
        reads_usage=pool.policy.usage,
    )
