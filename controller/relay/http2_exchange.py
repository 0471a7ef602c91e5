"""Exchanges with an endpoint over HTTP/2."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final

from controller.extproc.http2.asking import Asked
from controller.extproc.http2.asking import ask as ask_over
from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import Fields as BlockFields
from controller.extproc.http2.frames import StreamEnded
from controller.relay.asked import Body, Exchange, Head, first_of
from controller.relay.changes import is_header
from controller.relay.errors import EndpointFailed
from controller.relay.http1 import Fields

_STATUS: Final = re.compile(rb"[2-9][0-9]{2}")


async def begin(connection: Connection, head: Head) -> Asked:
    """Send the beginning of a request. Raises StreamEnded when the connection takes no more."""
    return await ask_over(connection, _block(head), end=not head.has_body)


async def ask(stream: Asked, head: Head, body: Body) -> Exchange:
    """Send the rest of it, and wait until its answer begins.

    Raises EndpointFailed when the stream ends before, or the answer begins with what is none.
    """
    sending = asyncio.create_task(_send(stream, head, body))
    try:
        await first_of(stream.answer(), sending)
        fields = await stream.answer()
        _check(fields)
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
        self.status = int(dict(self._head)[b":status"])
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


def _check(fields: BlockFields) -> None:
    """What could not be written in HTTP/1.1 as it is. Source: RFC 9113, sections 8.2.1 and 8.3.2."""
    if _STATUS.fullmatch(dict(fields).get(b":status", b"")) is None:
        raise EndpointFailed("the endpoint's answer has no status")
    for name, value in fields:
        if not name.startswith(b":") and (name != name.lower() or not is_header(name, value)):
            raise EndpointFailed("the endpoint's answer has a header that is none")


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
