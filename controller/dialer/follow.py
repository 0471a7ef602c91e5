"""The sockets that NGINX finds backends behind, as two files name them.

One names backends, the other one pools, whose endpoints come and go by themselves.
"""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from controller.dialed import DialedBackends, decode_dialed, dialed_endpoints
from controller.dialer.tunnel import Near, Peer, peer_of
from controller.errors import SettingInvalid
from controller.pools import decode_pools, pools_of

log = logging.getLogger(__name__)

FOLLOW_EVERY: Final = 0.02
"""Seconds between looks at the files; a look is a system call, and a version waits for what they name."""
RETIREMENT: Final = 60.0
"""Seconds for which a socket stays that is named no longer, since workers of an old version may use it."""

Identity = tuple[int, int, int]
"""Of a file that is replaced by rename, never written in place."""


class Sockets:
    """Listens where the files say, one socket for each endpoint."""

    def __init__(self, path: Path, *, pools: Path, retirement: float = RETIREMENT) -> None:
        """Sockets are relative to the working directory."""
        self._path = path
        self._pools_path = pools
        self._retirement = retirement
        self._seen: Identity | None = None
        self._backends = DialedBackends(())
        self._pools_seen: Identity | None = None
        self._pools = pools_of(())
        self._open: dict[str, asyncio.Server] = {}
        self._leaving: dict[str, float] = {}
        """Loop time at which a socket closes."""

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(FOLLOW_EVERY)

    async def look(self) -> None:
        """Open and close sockets if a file is another one."""
        now = asyncio.get_running_loop().time()
        for name in [name for name, due in self._leaving.items() if due <= now]:
            del self._leaving[name]
            self._close(name)
        is_changed = self._look_at_backends()
        if any(dialed.pool for dialed in self._backends.backends):
            is_changed |= self._look_at_pools()
        if is_changed:
            await self._apply(now=now)

    def _look_at_backends(self) -> bool:
        """Read the file if it is another one; whether other backends are dialed now."""
        try:
            if (identity := _identity(self._path)) == self._seen:
                return False
            self._seen = identity
            self._backends = decode_dialed(self._path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.error("file of backends unreadable", extra={"path": str(self._path), "reason": str(error)})
            return False
        return True

    def _look_at_pools(self) -> bool:
        try:
            if (identity := _identity(self._pools_path)) == self._pools_seen:
                return False
            self._pools_seen = identity
            pools = decode_pools(self._pools_path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.error("pools file unreadable", extra={"path": str(self._pools_path), "reason": str(error)})
            return False
        before, self._pools = self._pools, pools
        return before.etag != pools.etag

    async def _apply(self, *, now: float) -> None:
        wanted = set()
        for dialed in self._backends.backends:
            endpoints = dialed_endpoints(dialed, self._pools)
            wanted |= {endpoint.socket for endpoint in endpoints}
            missing = [endpoint for endpoint in endpoints if endpoint.socket not in self._open]
            if not missing:
                continue
            try:
                peer = peer_of(dialed, scratch=self._path.parent)
                for endpoint in missing:
                    self._open[endpoint.socket] = await _listen(Path(endpoint.socket), peer, endpoint.address)
            except (SettingInvalid, OSError) as error:
                log.error("backend cannot be dialed", extra={"name": dialed.server_name, "problem": str(error)})
        self._leaving = {
            name: self._leaving.get(name, now + self._retirement) for name in self._open if name not in wanted
        }
        log.info("backends read", extra={"sockets": len(wanted), "leaving": len(self._leaving)})

    def _close(self, name: str) -> None:
        """Connections that are open go on."""
        self._open.pop(name).close()
        Path(name).unlink(missing_ok=True)


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


async def _listen(path: Path, peer: Peer, address: str) -> asyncio.Server:
    return await asyncio.get_running_loop().create_unix_server(
        lambda: Near(peer, address), sock=bound(path), backlog=4096
    )


def bound(path: Path) -> socket.socket:
    """A socket that this account alone can use."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of a process that was killed
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound
