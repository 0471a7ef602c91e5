"""The sockets that NGINX finds backends behind, as a file names them."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from controller.bundle import DialedBackends, decode_dialed
from controller.dialer.tunnel import Near, Peer, peer_of
from controller.errors import SettingInvalid

log = logging.getLogger(__name__)

FOLLOW_EVERY: Final = 0.02
"""Seconds between looks at the file; a look is a system call, and a version waits for what it names."""
RETIREMENT: Final = 60.0
"""Seconds for which a socket stays that the file names no longer, since workers of an old version may use it."""


class Sockets:
    """Listens where the file says, one socket for each endpoint."""

    def __init__(self, path: Path, *, retirement: float = RETIREMENT) -> None:
        """Sockets are relative to the working directory."""
        self._path = path
        self._retirement = retirement
        self._seen: tuple[int, int, int] | None = None
        self._open: dict[str, asyncio.Server] = {}
        self._leaving: dict[str, float] = {}
        """Loop time at which a socket closes."""

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(FOLLOW_EVERY)

    async def look(self) -> None:
        """Open and close sockets if the file is another one. It is replaced by rename, never written in place."""
        now = asyncio.get_running_loop().time()
        for name in [name for name, due in self._leaving.items() if due <= now]:
            del self._leaving[name]
            self._close(name)
        try:
            status = self._path.stat()
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            if identity == self._seen:
                return
            self._seen = identity
            backends = decode_dialed(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.error("file of backends unreadable", extra={"path": str(self._path), "reason": str(error)})
            return
        await self._apply(backends, now=now)

    async def _apply(self, backends: DialedBackends, *, now: float) -> None:
        wanted = set()
        for dialed in backends.backends:
            wanted |= {endpoint.socket for endpoint in dialed.endpoints}
            missing = [endpoint for endpoint in dialed.endpoints if endpoint.socket not in self._open]
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


async def _listen(path: Path, peer: Peer, address: str) -> asyncio.Server:
    return await asyncio.get_running_loop().create_unix_server(
        lambda: Near(peer, address), sock=_bound(path), backlog=4096
    )


def _bound(path: Path) -> socket.socket:
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
