"""HTTP/1.1 as a client of endpoints: kept connections, answers that begin before the request has ended."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeAlias, cast

import httptools

from controller.relay.errors import EndpointFailed
from controller.relay.inlet import Inlet

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names are lower-case; in order, with repetition."""

_COPIED: Final = 16 * 1024
"""Bytes that cost less to copy into one piece than to be handed to the kernel one by one."""
NO_BODY: Final = frozenset({204, 304})


class Connection(asyncio.Protocol):
    """A connection that takes one request after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._inlet = Inlet()
        self._is_answering_head = False
        self._ends_with_connection = False
        self.status = 0
        """0 until the answer began."""
        self.fields: list[tuple[bytes, bytes]] = []
        self.has_ended = False
        """Whether the answer has."""
        self.keeps = False
        """Whether another request can follow it."""
        self.failure: str | None = None
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, data: bytes) -> None:
        """Waits until there is room. Raises EndpointFailed."""
        if self._transport is None:
            raise EndpointFailed(self.failure or "the connection is closed")
        self._transport.write(data)
        if not self._room.is_set():
            await self._room.wait()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send all of it, without waiting for room. Raises EndpointFailed."""
        if self._transport is None:
            raise EndpointFailed(self.failure or "the connection is closed")
        if sum(map(len, pieces)) <= _COPIED:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    @property
    def has_sent(self) -> bool:
        """Whether all that was written has left."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def take(self) -> bytes:
        """What came of the answer's body, which may be nothing yet."""
        return self._inlet.take()

    def begin(self, *, method: bytes) -> None:
        """Expect the answer to a request that is about to be sent."""
        self._parser = httptools.HttpResponseParser(self)
        self._is_answering_head = method == b"HEAD"
        self._news.clear()
        self.status, self.fields, self.has_ended, self.keeps = 0, [], False, False
        self._ends_with_connection = False

    async def answer(self) -> None:
        """Returns when `status` and `fields` are there. Raises EndpointFailed when the connection ends before."""
        while not self.status:
            if self.failure is not None:
                raise EndpointFailed(self.failure)
            self._news.clear()
            await self._news.wait()

    async def read(self) -> bytes:
        """A piece of the answer's body; empty at its end. Raises EndpointFailed when it breaks off."""
        while not self._inlet.pieces:
            if self.has_ended:
                return b""
            if self.failure is not None:
                raise EndpointFailed(self.failure)
            self._news.clear()
            await self._news.wait()
        return self.take()

    def close(self) -> None:
        self.failure = self.failure or "the connection was given up"
        if self._transport is not None:
            self._transport.abort()

    # What the transport does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._inlet.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = self._inlet.transport = None
        if self._ends_with_connection and error is None and not self.has_ended:
            self.has_ended = True
        self.failure = self.failure or f"the endpoint ended the connection{f': {error}' if error else ''}"
        self._room.set()
        self._news.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.has_ended:
            # Nobody asked: what follows is not to be taken for the answer to the next request.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            self.failure = f"the endpoint's answer cannot be read: {problem}"
            self.close()
        self._news.set()

    # What the parser finds.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.fields = []
            return
        if status < 100:
            self.failure = f"the endpoint's answer has the status {status}"
            self.close()
            return
        self.status = status
        self.keeps = self._parser.should_keep_alive()
        framed = {name for name, _ in self.fields} & {b"content-length", b"transfer-encoding"}
        if self._is_answering_head:
            # The parser waits for the body that such an answer tells of.
            self.has_ended, self.keeps = True, False
        elif not framed and status not in NO_BODY:
            self._ends_with_connection, self.keeps = True, False

    def on_body(self, body: bytes) -> None:
        if self.has_ended:
            return
        self._inlet.add(body)

    def on_message_complete(self) -> None:
        if self.status:
            self.has_ended = True


def request_head(method: bytes, target: bytes, fields: Fields) -> bytes:
    """The beginning of a request. Nothing in it may hold a line break: who calls has checked."""
    lines = [b"%s %s HTTP/1.1\r\n" % (method, target)]
    lines += [b"%s: %s\r\n" % field for field in fields]
    lines.append(b"\r\n")
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """A piece of a body whose length was not told; nothing for an empty one, which would end it."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


LAST_CHUNK: Final = b"0\r\n\r\n"


def last_chunk(trailers: Fields) -> bytes:
    """The end of such a body, with what is told behind it."""
    return b"0\r\n%b\r\n" % b"".join([b"%s: %s\r\n" % item for item in trailers])
