"""Exchanges with an endpoint over HTTP/2."""

import asyncio
from dataclasses import dataclass, field

from controller.extproc.http2.asking import Asked
from controller.extproc.http2.asking import ask as ask_over
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import Fields as BlockFields
from controller.extproc.http2.frames import StreamEnded
from controller.relay.asked import Body, Exchange, Head, first_of
from controller.relay.errors import EndpointFailed
from controller.relay.http1 import Fields


async def begin(connection: Connection, head: Head) -> Asked:
    """Send the beginning of a request. Raises StreamEnded when the connection takes no more."""
    return await ask_over(connection, _block(head), end=not head.has_body)


async def ask(stream: Asked, head: Head, body: Body) -> Exchange:
    """Send the rest of it, and wait until its answer begins. Raises EndpointFailed when the stream ends before."""
    sending = asyncio.create_task(_send(stream, head, body))
    try:
        await first_of(stream.answer(), sending)
        fields = await stream.answer()
    except BaseException as problem:
        sending.cancel()
        stream.reset()
        if isinstance(problem, StreamEnded):
            raise EndpointFailed(str(problem)) from problem
        raise
    return _Exchange(stream, fields, sending)


@dataclass
class _Exchange:
    _stream: Asked
    _head: BlockFields
    _sending: asyncio.Task[None]
    status: int = field(init=False)
    fields: Fields = field(init=False)

    def __post_init__(self) -> None:
        status = dict(self._head).get(b":status", b"")
        self.status = int(status) if status.isdigit() and len(status) == 3 else 502
        self.fields = [(name, value) for name, value in self._head if not name.startswith(b":")]

    async def read(self) -> bytes:
        try:
            return await self._stream.read()
        except StreamEnded as problem:
            raise EndpointFailed(str(problem)) from problem

    def take(self) -> tuple[bytes, bool]:
        return b"", False

    def close(self) -> None:
        self._sending.cancel()
        self._stream.reset()


async def _send(stream: Asked, head: Head, body: Body) -> None:
    if not head.has_body:
        return
    try:
        async for piece in body.pieces():
            if piece:
                await stream.send(piece)
        await stream.send(b"", end=True)
    except StreamEnded as problem:
        raise EndpointFailed(str(problem)) from problem


def _block(head: Head) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":path", head.target),
        (b":authority", head.authority),
        *head.fields,
    ]
