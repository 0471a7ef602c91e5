"""Streams of gRPC, one for each exchange of HTTP: read, answered, and ended with what they held."""

import asyncio
import logging
import os
from collections.abc import Awaitable
from itertools import count
from typing import Any, Final, Protocol

import grpc

from controller.extproc.messages import MessageUnreadable, decode_received
from controller.picker.ext_proc.desk import Desk, End
from controller.picker.ext_proc.exchange import Exchange, Replies
from controller.picker.ext_proc.verdicts import Verdict

log = logging.getLogger(__name__)

Ended = Any  # grpc.aio.EOF, which has a type of its own
_END: Final[Ended] = grpc.aio.EOF


class Stream(Protocol):
    """One stream, as grpc.aio gives it to what serves it."""

    async def read(self) -> bytes | Ended:
        """The next message; `_END` when the gateway sends no more."""
        ...

    async def write(self, message: bytes) -> None: ...

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream with an error. Raises."""
        ...


class Streams:
    """Serves streams."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._numbers = count(1)
        self._prefix = os.urandom(6).hex()
        """Identities of requests are of this process; others may ask the same endpoints."""

    async def process(self, _: Any, stream: Stream) -> None:
        """Serve one stream. It is cancelled when the gateway resets it."""
        desk = self._desk
        exchange = Exchange(desk, f"{self._prefix}{next(self._numbers):x}")
        end: End | None = None
        desk.open += 1
        try:
            await _Conversation(stream, exchange).hold()
        except MessageUnreadable as problem:
            end = End.UNREADABLE
            log.warning("stream of a gateway cannot be read", extra={"problem": str(problem)})
            await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
        finally:
            desk.open -= 1
            exchange.close(end=end)


class _Conversation:
    """Reads on while a request waits, so that a gateway that gives it up is heard."""

    def __init__(self, stream: Stream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self._reading: asyncio.Task[bytes | Ended] | None = None
        """A read that a wait left behind. One that has begun cannot be taken back."""

    async def hold(self) -> None:
        exchange, stream = self._exchange, self._stream
        try:
            while not exchange.is_over:
                data = await (self._reading or stream.read())
                self._reading = None
                if data is _END:
                    return
                received = decode_received(data)
                if received.observes:
                    continue
                answer = exchange.take(received)
                replies = answer if isinstance(answer, tuple) else await self._decided(answer)
                for reply in replies:
                    await stream.write(reply)
                if replies:
                    exchange.sent()
        finally:
            if self._reading is not None:
                self._reading.cancel()

    async def _decided(self, verdict: Awaitable[Verdict]) -> Replies:
        """The replies once it was decided, or once the gateway went on without that; none when it ended the stream."""
        exchange = self._exchange
        waiting = asyncio.ensure_future(verdict)
        try:
            while True:
                reading = self._reading = self._reading or asyncio.ensure_future(self._stream.read())
                await asyncio.wait((waiting, reading), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    return exchange.decided(waiting.result())
                data = reading.result()
                if data is _END:
                    return ()
                self._reading = None
                replies = exchange.take(decode_received(data))
                if not exchange.is_waiting:
                    assert isinstance(replies, tuple)  # only a request's end is waited for
                    return replies
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
