"""Exchanges with an endpoint over HTTP/1.1."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from controller.relay.asked import Body, Exchange, Head, first_of
from controller.relay.http1 import LAST_CHUNK, Connection, Fields, chunk, request_head

Keep: TypeAlias = Callable[[str, Connection], None]
"""Takes an address, and a connection to it that can be used again."""


async def ask(connection: Connection, address: str, head: Head, body: Body, *, keep: Keep) -> Exchange:
    """Send a request, and wait until its answer begins.

    Raises EndpointFailed when the endpoint ends the connection before.
    """
    connection.begin(method=head.method)
    whole = body.whole() if head.has_body else ()
    if whole is not None and (head.length is not None or not head.has_body):
        try:
            connection.write([_start_of(head), *whole])
            await connection.answer()
        except BaseException:
            connection.close()
            raise
        return _Exchange(keep, connection, address, None)
    sending = asyncio.create_task(_send(connection, head, body))
    try:
        await first_of(connection.answer(), sending)
    except BaseException:
        sending.cancel()
        connection.close()
        raise
    return _Exchange(keep, connection, address, sending)


@dataclass
class _Exchange:
    _keep: Keep
    _connection: Connection
    _address: str
    _sending: asyncio.Task[None] | None
    """None where all was written at once."""
    status: int = field(init=False)
    fields: Fields = field(init=False)

    def __post_init__(self) -> None:
        self.status, self.fields = self._connection.status, self._connection.fields

    async def read(self) -> bytes:
        return await self._connection.read()

    def take(self) -> tuple[bytes, bool]:
        return self._connection.take(), self._connection.has_ended

    def close(self) -> None:
        connection, sending = self._connection, self._sending
        if sending is None:
            is_sent = connection.has_sent
        else:
            is_sent = sending.done() and not sending.cancelled() and sending.exception() is None
        if is_sent and connection.has_ended and connection.keeps and connection.is_open:
            self._keep(self._address, connection)
            return
        if sending is not None:
            sending.cancel()
        connection.close()


async def _send(connection: Connection, head: Head, body: Body) -> None:
    start = _start_of(head)
    is_chunked = head.length is None
    async for piece in body.pieces():
        if piece:
            # The head travels with the first piece.
            await connection.send(start + (chunk(piece) if is_chunked else piece))
            start = b""
    end = LAST_CHUNK if is_chunked else b""
    if start or end:
        await connection.send(start + end)


def _start_of(head: Head) -> bytes:
    fields = [(b"host", head.authority), *head.fields]
    if head.has_body and head.length is None:
        fields.append((b"transfer-encoding", b"chunked"))
    return request_head(head.method, head.target, fields)
