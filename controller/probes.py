"""`/readyz`, `/healthz` and `/metrics` over TCP, for the kubelet and for Prometheus.

HTTP/1.1 by hand, one request a connection: a framework would take more memory than all else in the agent. The port is
not that of anything else, so that no client of the process takes connections from the kubelet.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from controller.errors import AddressUnusable

_PATIENCE: Final = 5.0
"""Seconds for a request and its answer."""
_LARGEST: Final = 16384
"""Bytes of a request."""
_PLAIN: Final = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]
"""Status, content type and body."""
Judge = Callable[[], Awaitable[str]]
"""Says what is wrong; empty when nothing is."""
More = Callable[[], Awaitable[bytes]]
"""Metrics of another process, as Prometheus reads them; empty when there are none."""


class Probes:
    """Answers with what the judges of a process say."""

    def __init__(
        self, registry: CollectorRegistry, *, why_not_ready: Judge, why_not_healthy: Judge, more: More | None = None
    ) -> None:
        """`why_not_healthy` names only what a restart would better: the kubelet ends a process that is not healthy."""
        self._registry = registry
        self._more = more
        self._judges = {"/readyz": why_not_ready, "/healthz": why_not_healthy}

    async def answer(self, path: str) -> Answer:
        """What is answered to a GET."""
        if path == "/metrics":
            more = await self._more() if self._more is not None else b""
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry) + more
        judge = self._judges.get(path)
        if judge is None:
            return 404, _PLAIN, b"not found\n"
        problem = await judge()
        return 503 if problem else 200, _PLAIN, f"{problem or 'ok'}\n".encode()

    @asynccontextmanager
    async def listening(self, address: str) -> AsyncIterator[int]:
        """Answers on `port` or `host:port`; gives the port. Raises AddressUnusable when it cannot be listened on."""
        host, _, port = address.rpartition(":")
        try:
            server = await asyncio.start_server(self._serve, host.strip("[]") or None, int(port), limit=_LARGEST)
        except (OSError, OverflowError) as error:
            raise AddressUnusable(f"{address} cannot be listened on: {error}") from error
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
                known = method in (b"GET", b"HEAD")
                status, kind, body = await self.answer(path) if known else (405, _PLAIN, b"only GET\n")
                writer.write(
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                )
                writer.write(b"" if method == b"HEAD" else body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
