"""Requests over HTTP/2 whose answers are read bit by bit."""

import asyncio
from collections import deque

from controller.extproc.http2.client import Connection
from controller.extproc.http2.frames import Fields, StreamEnded, encoded
from controller.extproc.http2.sending import Piece
from controller.extproc.http2.streams import Stream


async def ask(connection: Connection, fields: Fields, *, end: bool = False) -> "Asked":
    """A stream whose answer is read bit by bit. Raises StreamEnded."""
    asked = Asked()
    asked.stream = await connection.open(encoded(fields), asked, end=end)
    return asked


class Asked:
    """A request whose answer is read bit by bit. See `Listener`."""

    def __init__(self) -> None:
        self.stream: Stream
        self.trailers: Fields = []
        """Set when the answer has ended."""
        self._fields: Fields | None = None
        self._pieces: deque[bytes] = deque()
        self._has_ended = False
        self._failure: StreamEnded | None = None
        self._news = asyncio.Event()

    async def send(self, data: Piece, *, end: bool = False) -> None:
        """Waits until the other end takes it. Raises StreamEnded."""
        self.stream.send(data, end=end)
        await self.stream.drained()

    async def answer(self) -> Fields:
        """Headers of the answer. Raises StreamEnded."""
        while self._fields is None:
            await self._wait()
        return self._fields

    async def read(self) -> bytes:
        """What came of the body, in one piece; empty at its end. Raises StreamEnded."""
        while not self._pieces:
            if self._has_ended:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self.stream.consumed(len(data))
        return data

    def reset(self) -> None:
        """Give it up, unless it has ended both ways."""
        self.stream.reset()
        self.failed(StreamEnded("the stream was given up"))

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._news.clear()
        await self._news.wait()

    def head(self, fields: Fields) -> None:
        """See `Listener`."""
        self._fields = fields
        self._news.set()

    def data(self, data: bytes) -> None:
        """See `Listener`."""
        self._pieces.append(data)
        self._news.set()

    def ended(self, trailers: Fields) -> None:
        """See `Listener`."""
        self.trailers, self._has_ended = trailers, True
        self._news.set()

    def failed(self, problem: StreamEnded) -> None:
        """See `Listener`."""
        self._failure = self._failure or problem
        self._news.set()
