"""A connection of NGINX, joined to one in TLS with a backend whose certificate was looked at.

Nothing of a request reaches a backend before it has proved who it is: until then it waits here, and NGINX's connection
is closed without a byte when the proof fails.
"""

import asyncio
import logging
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from controller.alt_names import is_known, names_of
from controller.dialed import Dialed
from controller.errors import SettingInvalid

log = logging.getLogger(__name__)

CONNECT: Final = 2.0
"""Seconds until a backend is given up that does not answer, as NGINX does without this."""
HANDSHAKE: Final = 5.0
"""Seconds until a handshake is given up."""


@dataclass(frozen=True)
class Peer:
    """What is known of a backend, ready for use."""

    dialed: Dialed
    context: ssl.SSLContext

    def knows(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the certificate that was shown, which an authority vouches for, has one of the names."""
        names = names_of(transport.get_extra_info("peercert"))
        return is_known(names, hostnames=self.dialed.hostnames, uris=self.dialed.uris)


def peer_of(dialed: Dialed, *, scratch: Path) -> Peer:
    """Raises SettingInvalid when certificates cannot be loaded. scratch: a directory for a file of a moment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # `knows` does it, by other names than the one that is asked for
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2" if dialed.http2 else "http/1.1"])
    try:
        context.load_verify_locations(cadata=dialed.authorities)
        if dialed.chain:
            with tempfile.NamedTemporaryFile("w", dir=scratch) as file:  # made with mode 0600
                file.write(dialed.chain + "\n" + dialed.key)
                file.flush()
                context.load_cert_chain(file.name)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingInvalid(f"certificates for {dialed.server_name} cannot be loaded: {error}") from error
    return Peer(dialed, context)


class Near(asyncio.Protocol):
    """NGINX's side."""

    def __init__(self, peer: Peer, address: str) -> None:
        self._peer = peer
        self._address = address
        self._far: Far | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        """What came before the backend was there, one piece or two."""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transport is one without being derived from it.
        self.transport = cast(asyncio.Transport, transport)
        self._dialing = asyncio.get_running_loop().create_task(self._dial())

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._far is None:
            self._early.append(data)
            if self.transport is not None:
                self.transport.pause_reading()  # uvloop takes no heed of it before the first piece
        elif self._far.transport is not None:
            self._far.transport.write(data)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._far is not None and self._far.transport is not None:
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._far is not None and self._far.transport is not None:
            self._far.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.transport = None
        if self._dialing is not None:
            self._dialing.cancel()
        if self._far is not None and self._far.transport is not None:
            self._far.transport.close()

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        host, _, port = self._address.rpartition(":")
        far = Far(self)
        try:
            async with asyncio.timeout(CONNECT + HANDSHAKE):
                transport, _ = await loop.create_connection(
                    lambda: far,
                    host.strip("[]"),
                    int(port),
                    ssl=self._peer.context,
                    server_hostname=self._peer.dialed.server_name,
                    ssl_handshake_timeout=HANDSHAKE,
                )
        except (OSError, TimeoutError) as error:
            self._refuse(str(error) or type(error).__name__)
            return
        if self.transport is None:
            transport.abort()
        elif not self._peer.knows(transport):
            transport.abort()
            self._refuse("its certificate has none of the names")
        else:
            self._far = far
            transport.writelines(self._early)
            self._early.clear()
            self.transport.resume_reading()

    def _refuse(self, problem: str) -> None:
        log.warning("backend is not dialed", extra={"endpoint": self._address, "problem": problem})
        if self.transport is not None:
            self.transport.abort()


class Far(asyncio.Protocol):
    """The backend's side."""

    def __init__(self, near: Near) -> None:
        self._near = near
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._near.transport is not None:
            self._near.transport.write(data)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._near.transport is not None:
            self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        if self._near.transport is not None:
            self._near.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.transport = None
        if self._near.transport is not None:
            self._near.transport.close()
