"""HTTP/1.1 as a server of NGINX: one request after the other on each connection, over a Unix socket."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

import httptools

from controller.relay.http1 import LAST_CHUNK, Fields, chunk, last_chunk
from controller.relay.inlet import Inlet

_NO_BODY: Final = frozenset({101, 204, 304})
"""Statuses of answers whose end is not told, as there is none or it is that of the connection."""
_PROBLEM: Final = b"""{"error": {"message": "the request cannot be read", "type": "invalid_request_error"}}\n"""
_UNREADABLE: Final = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_PROBLEM), _PROBLEM)
)
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_LINGER: Final = 10.0
"""Seconds for NGINX to send the rest of a request that was answered early. Closed before that, a Unix socket takes the
answer with it."""


@dataclass
class Request:
    """A request that NGINX sends."""

    method: bytes
    target: bytes
    fields: Fields
    has_body: bool
    _connection: "ServerConnection" = field(repr=False)
    upgrade: bytes = b""
    """The protocol that is asked for instead of HTTP; then `read` gives what comes behind the request. Else empty."""

    async def read(self) -> bytes:
        """A piece of the body; empty at its end."""
        return await self._connection.read()

    def take(self) -> bytes:
        """What came of the body, which may be nothing yet."""
        return self._connection.take()

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is to be read any more."""
        return self._connection.has_been_read


@dataclass
class Reply:
    """The answer to a request."""

    _connection: "ServerConnection" = field(repr=False)
    _is_head: bool
    has_begun: bool = False
    has_ended: bool = False
    _is_chunked: bool = False

    async def begin(self, status: int, fields: Fields, *, length: int | None = None) -> None:
        """Send status and headers, which say nothing of the framing. None: the length is not known."""
        self.has_begun = True
        self._is_chunked = length is None and not self._is_head and status not in _NO_BODY
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, _PHRASES.get(status, b""))]
        lines += [b"%s: %s\r\n" % item for item in fields]
        if self._is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        elif length is not None and status not in _NO_BODY:
            lines.append(b"content-length: %d\r\n" % length)
        lines.append(b"\r\n")
        await self._connection.write(b"".join(lines))

    async def write(self, piece: bytes) -> None:
        """Waits while NGINX takes no more."""
        if not self._is_head and piece:
            await self._connection.write(chunk(piece) if self._is_chunked else piece)

    async def end(self, trailers: Fields = ()) -> None:
        """Trailers are left out where the length was told, or there is no body."""
        if self._is_chunked:
            await self._connection.write(last_chunk(trailers) if trailers else LAST_CHUNK)
        self.has_ended = True

    async def whole(self, status: int, fields: Fields, body: bytes) -> None:
        """Begin, write and end."""
        await self.begin(status, fields, length=len(body))
        await self.write(body)
        await self.end()


Serve = Callable[[Request, Reply], Awaitable[None]]
"""Answers a request. It is cancelled when NGINX hangs up. Where it returns without an end, the connection is cut."""


class ServerConnection(asyncio.Protocol):
    """A connection of NGINX's."""

    def __init__(self, serve: Serve, connections: "set[ServerConnection]") -> None:
        self._serve = serve
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self.task: asyncio.Task[None] | None = None
        """Answers the request at hand; None without one."""
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._inlet = Inlet()
        self._is_whole = True
        self._is_discarding = False
        self._upgrades = False
        """Whether what follows the request is another protocol's."""
        self._keeps = True
        self._out: list[bytes] = []
        self._early = b""
        """Of the next request."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_been_read(self) -> bool:
        return self._is_whole and not self._inlet.pieces

    async def read(self) -> bytes:
        while not self._inlet.pieces:
            if self._is_whole:
                return b""
            self._news.clear()
            await self._news.wait()
        return self.take()

    def take(self) -> bytes:
        return self._inlet.take()

    async def write(self, data: bytes) -> None:
        if not self._out:
            # What is written in one turn of the loop leaves in one piece.
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)
        if not self._room.is_set():
            await self._room.wait()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        """Cut it, with what was not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._inlet.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = self._inlet.transport = None
        self._connections.discard(self)
        self._room.set()
        if self.task is not None:
            self.task.cancel()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._upgrades:
            self.on_body(data)
            return
        if self.task is not None and self._is_whole:
            # NGINX has the whole answer a moment before the task that gave it is done.
            self._early += data
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._is_whole = not self._upgrades
            if self._upgrades and (rest := data[upgrade.args[0] :]):
                self.on_body(rest)
        except httptools.HttpParserError:
            if self.task is None and self._transport is not None:
                # NGINX passes on what no URL has.
                self._transport.write(_UNREADABLE)
                self._transport.close()
            else:
                self.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        method = self._parser.get_method()
        names = {name for name, _ in self._fields}
        lengths = [value for name, value in self._fields if name == b"content-length"]
        has_body = b"transfer-encoding" in names or any(value != b"0" for value in lengths)
        upgrade = next((value for name, value in self._fields if name == b"upgrade"), b"")
        self._upgrades = bool(upgrade) and not has_body and self._parser.should_upgrade()
        request = Request(method, self._target, self._fields, has_body, self, upgrade if self._upgrades else b"")
        self._target, self._fields = b"", []
        self._is_whole = False
        self._keeps = self._parser.should_keep_alive() and not upgrade
        self._news.clear()
        self.task = asyncio.create_task(self._answer(request, Reply(self, _is_head=method == b"HEAD")))

    def on_body(self, body: bytes) -> None:
        if self._is_discarding:
            return
        self._inlet.add(body)
        self._news.set()

    def on_message_complete(self) -> None:
        self._is_whole = True
        self._is_discarding = False
        self._news.set()

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            await self._serve(request, reply)
        finally:
            self.task = None
            self._inlet.clear()
            if not reply.has_ended:
                self._cut(has_begun=reply.has_begun)
            else:
                self._linger()
            if self._early and self._transport is not None:
                early, self._early = self._early, b""
                self.data_received(early)

    def _cut(self, *, has_begun: bool) -> None:
        """End it within an answer. NGINX gets to know that one has begun: without that it would ask again."""
        if has_begun and self._transport is not None:
            self._flush()
            self._transport.close()
            asyncio.get_running_loop().call_later(_LINGER, self.close)
        else:
            self.close()

    def _linger(self) -> None:
        self._inlet.resume()
        if not self._keeps and self._transport is not None:
            self._flush()
            self._transport.close()
        elif not self._is_whole:
            self._is_discarding = True
            asyncio.get_running_loop().call_later(_LINGER, self._close_if_discarding)

    def _close_if_discarding(self) -> None:
        if self._is_discarding:
            self.close()
