"""HTTP for the requests that NGINX sends the picker; every other one is handed to uvicorn.

A protocol on httptools, because uvicorn and ASGI cost 25 us of CPU per request of 1 KB where this takes 10. It serves
one request after another on a connection, as NGINX asks. The first request that is not its own takes the connection
along. There is no limit on idle connections: on a Unix socket they are NGINX's, which closes them.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableSet
from typing import Any, Final, Protocol, cast

import httptools

from controller.picker.errors import error_body
from controller.picker.requests import BodyPieces, Headers
from controller.picker.workers import NOBODY, Workers
from controller.turns import Turns

_UNREADABLE: Final = error_body(
    "",
    status=400,
    message="the request is not one that the endpoint picker can read: an unknown method, or a byte that none may hold",
    kind="invalid_request_error",
    code="invalid_request",
)
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_UNREADABLE), _UNREADABLE)
)
"""NGINX takes any method of capital letters, and bytes above 0x7f in a path, and passes the answer on to the client."""

LARGE: Final = 64 * 1024
"""Bytes of a body from which on it needs a turn: NGINX has the whole of it and sends it as fast as it is taken, so
hundreds received side by side would be held together. What one read brings may be more."""
MOST_TOGETHER: Final = 8
"""Bodies: 64 MB at most, and enough to keep the one thread busy. The others wait in NGINX's files."""


class Exchange(Protocol):
    """What is asked and answered."""

    def takes(self, method: str, path: str, headers: Headers) -> bool:
        """Whether a request is answered here."""
        ...

    def answer(
        self, method: str, path: str, headers: Headers, body: BodyPieces, *, worker: int = NOBODY
    ) -> bytes | Awaitable[bytes]:
        """The whole answer as it stands on the wire. One that is awaited is cancelled when the client hangs up.

        `worker` is the number of the process that asks, see `Workers`.
        """
        ...

    def hung_up(self) -> None:
        """A client went away in its body."""
        ...


class PickProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        connections: MutableSet[Any],  # Any: connections of uvicorn
        turns: Turns,
        workers: Workers,
        other: Callable[[], asyncio.Protocol],
    ) -> None:
        self._exchange = exchange
        self._connections = connections
        """Those that are open; uvicorn waits for them when it stops."""
        self._turns = turns
        """For large bodies, of all connections."""
        self._workers = workers
        self._worker = NOBODY
        self._other = other
        """Makes the protocol that takes the connection along."""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._unread: list[bytes] = []
        """What came of a request of which it is not known who answers it."""
        self._url = b""
        self._method = ""
        self._path = ""
        self._headers: dict[bytes, bytes] = {}
        self._body = BodyPieces()
        self._is_ours: bool | None = None
        """Whether the request under way is answered here; None before its headers were read."""
        self._waiting: asyncio.Future[bytes] | None = None
        self._closes = False
        self._has_asked = False
        """Whether it has a turn for the body under way, or waits for one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transport is one without being derived from it.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._worker = self._workers.at(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._connections.discard(self)
        self._transport = None
        self._leave()
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._is_ours:
            self._exchange.hung_up()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_ours is None:
            self._unread.append(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The parser reads no further request.
            self._closes = True
            self._close_if_done()
        except httptools.HttpParserCallbackError:
            # Not what came is wrong, but what was made of it: the connection ends, and the route's failure mode acts.
            raise
        except httptools.HttpParserError:
            self._send(_BAD_REQUEST, closes=True)
            return
        if self._is_ours is False:
            self._hand_over()
        elif self._is_ours and self._body.size > LARGE and not self._has_asked:
            self._has_asked = True
            if not self._turns.ask(self, 1, then=self.go_on) and self._transport is not None:
                self._transport.pause_reading()

    def go_on(self) -> None:
        """Its turn has come. A connection that is closing gives it back when it is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._waiting is not None or self._is_ours is not None:
            # A second request before the answer to the first, which NGINX never sends: it is not answered.
            self._closes = True
        self._url = b""
        self._headers = {}
        self._body = BodyPieces()

    def on_url(self, url: bytes) -> None:
        """Called by the parser, once for each piece of it that came."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._method = self._parser.get_method().decode("ascii")
        self._path = self._url.partition(b"?")[0].decode("latin-1")
        self._is_ours = self._exchange.takes(self._method, self._path, self._headers)
        if self._is_ours:
            self._unread.clear()
            if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.add(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._leave()
        if not self._is_ours or self._waiting is not None or self._transport is None or self._transport.is_closing():
            return
        closes = self._closes or not self._parser.should_keep_alive() or b"upgrade" in self._headers
        answer = self._exchange.answer(self._method, self._path, self._headers, self._body, worker=self._worker)
        self._is_ours = None
        if isinstance(answer, bytes):
            # The connection may rest for long.
            self._body.drop()
            self._send(answer, closes=closes)
            return
        self._closes = closes
        self._waiting = asyncio.ensure_future(answer)
        self._waiting.add_done_callback(self._send_awaited)

    def shutdown(self) -> None:
        """Close the connection after the request under way. Called by uvicorn when it stops."""
        self._closes = True
        self._close_if_done()

    def _send_awaited(self, answer: asyncio.Future[bytes]) -> None:
        self._waiting = None
        if not answer.cancelled():
            if answer.exception() is not None and self._transport is not None:
                # As above.
                self._transport.abort()
            self._send(answer.result(), closes=self._closes)

    def _send(self, answer: bytes, *, closes: bool) -> None:
        if self._transport is not None:
            self._transport.write(answer)
            if closes or self._closes:
                self._transport.close()

    def _close_if_done(self) -> None:
        if self._transport is not None and self._waiting is None and self._is_ours is None and not self._unread:
            self._transport.close()

    def _leave(self) -> None:
        if self._has_asked:
            self._has_asked = False
            self._turns.end(self)

    def _hand_over(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None or self._closes:
            if transport is not None:
                transport.close()
            return
        self._connections.discard(self)
        other = self._other()
        transport.set_protocol(other)
        other.connection_made(transport)
        other.data_received(b"".join(self._unread))
