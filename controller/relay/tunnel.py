"""WebSockets: the picker chooses as for any request, and bytes then pass both ways without it.

What it is told of such an exchange are its headers, and its end: messages of a WebSocket are no body of HTTP.
"""

import asyncio
from typing import Final

import httptools

from controller.relay.asked import Head
from controller.relay.errors import EndpointFailed
from controller.relay.http1 import Connection, Fields, request_head
from controller.relay.places import connected
from controller.relay.server import Reply, Request

SWITCHED: Final = 101
"""The status of an answer after which the protocol is another one. Source: RFC 9110, section 7.8."""


class TunnelConnection(Connection):
    """A connection to an endpoint whose protocol may change. What follows then is read like a body."""

    def __init__(self) -> None:
        super().__init__()
        self._is_raw = False

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if not self._is_raw and self._parser is not None:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as switched:
                self._is_raw, data = True, data[switched.args[0] :]
            except httptools.HttpParserError as problem:
                self.failure = f"the endpoint's answer cannot be read: {problem}"
                self.close()
                data = b""
        if data:
            self.on_body(data)
        self._news.set()

    def on_headers_complete(self) -> None:
        """See `Connection`."""
        assert self._parser is not None
        if self._parser.get_status_code() != SWITCHED:
            super().on_headers_complete()
            return
        self.status, self._ends_with_connection = SWITCHED, True

    def on_message_complete(self) -> None:
        """See `Connection`."""
        if self.status != SWITCHED:
            super().on_message_complete()


def upgrading(upgrade: bytes) -> Fields:
    """Headers that ask for another protocol, or agree to it."""
    return ((b"connection", b"upgrade"), (b"upgrade", upgrade))


class Tunnel:
    """An answer to the question for another protocol. See `Exchange`."""

    def __init__(self, connection: TunnelConnection) -> None:
        self.status = connection.status
        self.fields: Fields = connection.fields
        self._connection = connection

    async def read(self) -> bytes:
        return await self._connection.read()

    def take(self) -> tuple[bytes, bool]:
        return self._connection.take(), self._connection.has_ended

    async def send(self, data: bytes) -> None:
        """Raises EndpointFailed."""
        await self._connection.send(data)

    def close(self) -> None:
        self._connection.close()


async def ask(place: str, head: Head, upgrade: bytes) -> Tunnel:
    """Ask an endpoint for another protocol, and wait for its answer. Raises EndpointFailed."""
    connection = await connected(TunnelConnection, place)
    try:
        connection.begin(method=head.method)
        fields = [(b"host", head.authority), *head.fields, *upgrading(upgrade)]
        await connection.send(request_head(head.method, head.target, fields))
        await connection.answer()
    except BaseException:
        connection.close()
        raise
    return Tunnel(connection)


async def join(request: Request, reply: Reply, tunnel: Tunnel) -> None:
    """Pass bytes both ways until the endpoint has ended. Cancelled when the client is gone."""
    sending = asyncio.create_task(_send(request, tunnel))
    try:
        while data := await tunnel.read():
            await reply.write(data)
    except EndpointFailed:
        pass  # it broke off: there is nobody to tell but by the end of the connection
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        tunnel.close()


async def _send(request: Request, tunnel: Tunnel) -> None:
    try:
        while data := await request.read():
            await tunnel.send(data)
    except EndpointFailed:
        pass  # what it said before is read still
