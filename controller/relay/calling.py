"""Connections to pickers: over TCP, and in TLS as their pools say."""

import asyncio
import math
import socket
import ssl
from typing import Final

from controller.alt_names import is_known
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import StreamEnded
from controller.pools import PickerTls
from controller.relay.errors import Fault, PickerFailed
from controller.relay.places import host_and_port
from controller.relay.watching import Patience, Place

WINDOW: Final = 512 * 1024
"""Bytes that a picker may send ahead on a stream: what it gives back of a prompt of 220 KB comes without a pause."""


async def connected(place: Place, patience: Patience) -> Connection:
    """A connection whose settings have come. Raises PickerFailed when there is none in time."""
    loop = asyncio.get_running_loop()
    host, port = host_and_port(place.address)
    connection: Connection | None = None
    try:
        async with asyncio.timeout(patience.connect):
            context = await asyncio.to_thread(_context, place.tls) if place.tls else None
            name = (place.tls.server_name or host) if place.tls else None
            transport, connection = await loop.create_connection(
                lambda: Connection(stream_window=WINDOW), host, port, ssl=context, server_hostname=name
            )
            _keep_alive(transport, patience=patience.silence + patience.pong)
            if place.tls:
                _check_names(transport, place.tls)
            await connection.ready
    except (OSError, TimeoutError, StreamEnded, ValueError) as problem:
        if connection is not None:
            connection.close("it did not become ready")
        reason = f"cannot be reached: {problem}" if str(problem) else "cannot be reached in time"
        raise PickerFailed(reason, fault=Fault.UNREACHABLE) from problem
    return connection


def _keep_alive(transport: asyncio.BaseTransport, *, patience: float) -> None:
    """Have the kernel end a connection whose other end acknowledges nothing for some seconds, idle or not."""
    found = transport.get_extra_info("socket")
    seconds = max(1, math.ceil(patience))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 2))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _context(tls: PickerTls) -> ssl.SSLContext:
    """Raises ValueError when the certificates cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if tls.ca:
        # Other names than the one that is asked for are compared after the handshake.
        context.check_hostname = not (tls.hostnames or tls.uris)
        try:
            context.load_verify_locations(cadata=tls.ca)
        except ssl.SSLError as error:
            raise ValueError(f"its authority's certificates cannot be read: {error}") from error
        return context
    # As in the field: pickers serve with certificates that they made themselves.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _check_names(transport: asyncio.BaseTransport, tls: PickerTls) -> None:
    """Raises ValueError when a certificate, which an authority vouches for, has none of the wanted names."""
    if not (tls.hostnames or tls.uris):
        return
    shown = transport.get_extra_info("peercert") or {}
    names = tuple((str(kind), str(name)) for kind, name in shown.get("subjectAltName", ()))
    if not is_known(names, hostnames=tls.hostnames, uris=tls.uris):
        raise ValueError("its certificate has none of the names")
