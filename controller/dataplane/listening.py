"""An HTTPS server whose certificate can be replaced while it serves."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from controller.dataplane.pki import Pair
from controller.errors import AddressUnusable
from controller.serving import server_of

_KEEPALIVE: Final = 75
"""Seconds; longer than an instance goes without a report."""
_HEADERS_TIMEOUT: Final = 10.0
"""Seconds from the beginning of a connection, and of each request on it, until its headers are there."""
_GRACE: Final = 3
"""Seconds for answers under way when the server ends; nobody waits for news any more by then."""


class Listener:
    """One server, and the TLS context that all its connections share."""

    def __init__(self, app: ASGIApp, *, most_waiting: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._server = server_of(
            app,
            http=_Punctual,
            keepalive=_KEEPALIVE,
            grace=_GRACE,
            limit_concurrency=most_waiting,
            ssl_context_factory=lambda config, default: self._context,
        )
        self.port = 0
        """The port that is listened on."""

    def use(self, serving: Pair) -> None:
        """Serve with a certificate from the next connection on."""
        # Python reads certificates from files only. This one is in memory.
        file = os.memfd_create("serving", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as writing:
                writing.write(serving.certificate + serving.key)
            self._context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)

    @contextlib.asynccontextmanager
    async def listening(self, address: tuple[str, int]) -> AsyncIterator[None]:
        """Raises AddressUnusable when the address cannot be listened on."""
        with _socket(address) as listening:
            self.port = listening.getsockname()[1]
            serving = asyncio.create_task(self._server.serve([listening]), name="serve bundles")
            try:
                yield
            finally:
                self._server.should_exit = True
                await serving


def _socket(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=1024)
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=dual)
    except OSError as error:
        raise AddressUnusable(f"{host or '*'}:{port} cannot be listened on: {error.strerror}") from error


class _Punctual(HttpToolsProtocol):
    """Closes connections whose requests do not come: uvicorn waits for ever for the headers of one that has begun."""

    def __init__(self, *given: Any, **named: Any) -> None:  # Any: uvicorn's own
        super().__init__(*given, **named)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and (self.transport.is_closing() or not self.transport.get_write_buffer_size()):
            # TLS waits for the other side to say goodbye, which one that keeps a connection for later does not hear.
            self.transport.abort()
        super().shutdown()

    def _expect(self) -> None:
        self._came()
        self._deadline = self.loop.call_later(_HEADERS_TIMEOUT, self.transport.close)

    def _came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
