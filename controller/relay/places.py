"""Places where endpoints are reached, and connections to them.

Without TLS, or to a socket of the dialer, which speaks it and knows the endpoint by its certificate.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from controller.dialed import dialed_socket
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import StreamEnded
from controller.headers import TryOutcome
from controller.relay.errors import EndpointFailed

CONNECT_TIMEOUT: Final = 2.0
"""Seconds; as NGINX waits for a backend."""
DIALED_TIMEOUT: Final = 8.0
"""As above, through the dialer; longer than its own."""
_UNIX: Final = "unix:"
"""Begins a place that is a socket."""
_Kind = TypeVar("_Kind", bound=asyncio.Protocol)


def place_of(address: str, *, stem: str) -> str:
    """Where an endpoint is reached: its address, or the socket of the dialer where those have a stem."""
    return f"{_UNIX}{dialed_socket(stem, address)}" if stem else address


def host_and_port(address: str) -> tuple[str, int]:
    """Of `ip:port`, an IPv6 address in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def connected(kind: Callable[[], _Kind], place: str) -> _Kind:
    """A connection for HTTP/1.1. Raises EndpointFailed when the endpoint cannot be reached in time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await _opened(kind, place)
    except (OSError, TimeoutError) as problem:
        reason = f"{place} cannot be reached: {str(problem) or 'not in time'}"
        raise EndpointFailed(reason, outcome=TryOutcome.UNREACHABLE) from problem


async def connected_http2(address: str) -> Connection:
    """A connection for HTTP/2, whose settings have come. Raises EndpointFailed likewise."""
    # The dialer takes longer for a backend that it has to know first, and hangs up when it gives up.
    patience = DIALED_TIMEOUT if address.startswith(_UNIX) else CONNECT_TIMEOUT
    try:
        async with asyncio.timeout(patience):
            connection = await _opened(Connection, address)
            await connection.ready
    except (OSError, TimeoutError, StreamEnded) as problem:
        reason = f"{address} cannot be reached: {str(problem) or 'not in time'}"
        raise EndpointFailed(reason, outcome=TryOutcome.UNREACHABLE) from problem
    return connection


async def _opened(kind: Callable[[], _Kind], place: str) -> _Kind:
    loop = asyncio.get_running_loop()
    if place.startswith(_UNIX):
        _, connection = await loop.create_unix_connection(kind, place.removeprefix(_UNIX))
    else:
        _, connection = await loop.create_connection(kind, *host_and_port(place))
    return connection
