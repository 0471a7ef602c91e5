"""gRPC over a stream of HTTP/2: messages with their length in front, and a status at the end.

Source: gRPC over HTTP2, PROTOCOL-HTTP2.md.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from controller.relay.errors import StreamEnded
from controller.relay.http2 import Connection, Stream

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes of one message; a picker that replaces a body in one piece sends large ones."""
UNIMPLEMENTED: Final = 12
_prefix: Final = struct.Struct(">BL")


class Call:
    """One call, with messages both ways."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._has_begun = False
        self._turn = asyncio.Lock()
        """Messages of two senders do not mix."""

    async def send(self, message: bytes) -> None:
        """Raises StreamEnded. Waits until the other end takes it."""
        async with self._turn:
            await self._stream.send(_prefix.pack(0, len(message)) + message)

    async def done(self) -> None:
        """Say that no message follows. Raises StreamEnded."""
        await self._stream.send(b"", end=True)

    async def receive(self) -> bytes | None:
        """The next message; None when the call ended well.

        Raises StreamEnded when it did not, or when what comes is no gRPC.
        """
        if not self._has_begun:
            self._check_head(await self._stream.head())
            self._has_begun = True
        while True:
            if len(self._buffer) >= 5:
                compressed, size = _prefix.unpack_from(self._buffer)
                if compressed or size > MAX_MESSAGE:
                    raise StreamEnded("a message is compressed" if compressed else f"a message has {size:,} bytes")
                if len(self._buffer) >= 5 + size:
                    message = bytes(self._buffer[5 : 5 + size])
                    del self._buffer[: 5 + size]
                    return message
            data = await self._stream.read()
            if not data:
                status = status_of(self._stream.trailers)
                if status == 0 and not self._buffer:
                    return None
                raise StreamEnded(f"the call ended with {_described(self._stream.trailers)}")
            self._buffer += data

    def cancel(self) -> None:
        """Give the call up, unless it has ended."""
        self._stream.reset()

    def _check_head(self, head: Sequence[tuple[bytes, bytes]]) -> None:
        fields = dict(head)
        if fields.get(b":status") != b"200":
            raise StreamEnded(f"the answer has the status {fields.get(b':status', b'').decode(errors='replace')}")
        if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
            raise StreamEnded("the answer is no gRPC")


async def call(connection: Connection, method: str, *, authority: str, is_tls: bool) -> Call:
    """Open a call. Raises StreamEnded."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"https" if is_tls else b"http"),
        (b":path", method.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"infergate"),
    )
    return Call(await connection.open(fields))


def status_of(trailers: Sequence[tuple[bytes, bytes]]) -> int:
    """gRPC's status of a call that ended; 2 (UNKNOWN) without one."""
    text = dict(trailers).get(b"grpc-status", b"")
    return int(text) if text.isdigit() and len(text) < 4 else 2


def _described(trailers: Sequence[tuple[bytes, bytes]]) -> str:
    message = dict(trailers).get(b"grpc-message", b"").decode(errors="replace")[:200]
    return f"status {status_of(trailers)}" + (f": {message}" if message else "")
