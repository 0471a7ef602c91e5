"""Pages of model servers over HTTP/1.1: one connection to each endpoint, kept open between scrapes.

A protocol on httptools, because a scrape through httpx takes 0.4 to 1.3 ms of CPU: with 100 idle endpoints a tenth of a
core and more. It knows what metrics, and a list of models, need: GET, no redirects, no compression.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import httptools

from controller.picker.trust import context_of, knows
from controller.pools import PoolTls

LARGEST_PAGE: Final = 4 * 1024 * 1024
"""Bytes; forty times the page of a vLLM server."""
LONGEST_SCRAPE: Final = 2.0
"""Seconds until a scrape is given up."""
KEEPALIVE: Final = 4.0
"""Seconds an idle connection is used again; uvicorn, in front of vLLM and SGLang, closes after 5."""


class ScrapeFailed(Exception):
    """An endpoint gave no answer that can be used."""


@dataclass(frozen=True)
class Page:
    """An answer to a scrape."""

    status: int
    body: bytes


class HttpPages:
    """One page of each endpoint."""

    def __init__(
        self,
        path: str = "/metrics",
        *,
        accept: str = "text/plain",
        trust: Callable[[str], PoolTls | None] = lambda address: None,
    ) -> None:
        """trust: how an endpoint is known that is asked over TLS; None for plain text."""
        self._path = path
        self._accept = accept
        self._trust = trust
        self._connections: dict[str, _Connection] = {}

    async def get(self, address: str) -> Page:
        """The page of an endpoint. Raises ScrapeFailed, after `LONGEST_SCRAPE` at the latest."""
        try:
            async with asyncio.timeout(LONGEST_SCRAPE):
                connection = self._connections.get(address)
                trust = self._trust(address)
                if connection is None or not connection.is_usable or connection.trust != trust:
                    connection = await self._connect(address, trust)
                return await connection.get()
        except (OSError, ValueError, TimeoutError, httptools.HttpParserError) as error:
            self.forget(address)
            raise ScrapeFailed(f"{address}: {error or type(error).__name__}") from error

    def forget(self, address: str) -> None:
        """Close what is open to an endpoint."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()

    async def _connect(self, address: str, trust: PoolTls | None) -> "_Connection":
        self.forget(address)
        host, _, port = address.rpartition(":")
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: infergate-picker\r\n"
            f"Accept: {self._accept}\r\nAccept-Encoding: identity\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(
            lambda: _Connection(request.encode("ascii"), trust=trust, loop=loop),
            host.strip("[]"),
            int(port),
            ssl=context_of(trust) if trust else None,
            server_hostname=trust.server_name if trust else None,
        )
        if trust is not None and not knows(trust, transport):
            connection.close()
            raise ConnectionError("its certificate has none of the names")
        self._connections[address] = connection
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, request: bytes, *, trust: PoolTls | None, loop: asyncio.AbstractEventLoop) -> None:
        self.trust = trust
        """As it was when the connection was opened."""
        self._request = request
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Page] | None = None
        self._used_at = 0.0
        self._begin()

    @property
    def is_usable(self) -> bool:
        """Whether it can take another request."""
        is_open = self._transport is not None and not self._transport.is_closing()
        return is_open and self._answer is None and time.monotonic() - self._used_at < KEEPALIVE

    async def get(self) -> Page:
        """Ask for the page. Raises OSError, ValueError or httptools.HttpParserError."""
        if self._transport is None:
            raise ConnectionError("not connected")
        self._begin()
        self._answer = self._loop.create_future()
        self._transport.write(self._request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._answer = None
            self._used_at = time.monotonic()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transport is one without being derived from it.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ValueError(f"malformed answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._headers_complete and not self._is_delimited and exc is None:
            # Without a length the end of the connection is the end of the page.
            self.on_message_complete()
        else:
            self._fail(exc or ConnectionError("closed before the end of the answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._is_delimited = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._headers_complete = True
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body
        if len(self._body) > LARGEST_PAGE:
            self._fail(ValueError(f"page above {LARGEST_PAGE} bytes"))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._transport is not None and not self._parser.should_keep_alive():
            self._transport.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Page(self._status, bytes(self._body)))

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._status = 0
        self._headers_complete = False
        self._is_delimited = False

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
