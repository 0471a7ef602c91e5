"""`/readyz`, `/healthz` and `/metrics` over TCP, for the kubelet and for Prometheus.

HTTP/1.1 by hand, one request a connection: a framework would take more memory than all else in the agent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from controller.agent.standing import Standing
from controller.errors import AddressUnusable

_PATIENCE: Final = 5.0
"""Seconds for a request and its answer."""
_LARGEST: Final = 16384
"""Bytes of a request."""
_LONGEST_TURN: Final = 180.0
"""Seconds: to wait for news takes 30 at most, to apply a bundle 60 when all of its waits run out."""

_PLAIN: Final = "text/plain; charset=utf-8"


class DataPlane(Protocol):
    """nginx, as far as probes look at it."""

    @property
    def is_nginx_wanted(self) -> bool: ...
    @property
    def nginx_pid(self) -> int | None: ...
    async def version(self) -> str | None: ...


Answer = tuple[int, str, bytes]
"""Status, content type and body."""


class Probes:
    """Judges one instance."""

    def __init__(self, data_plane: DataPlane, standing: Standing, registry: CollectorRegistry) -> None:
        self._data_plane = data_plane
        self._standing = standing
        self._registry = registry

    async def answer(self, path: str) -> Answer:
        """What is answered to a GET."""
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        judges = {"/readyz": self.why_not_ready, "/healthz": self.why_not_healthy}
        judge: Callable[[], Awaitable[str]] | None = judges.get(path)
        if judge is None:
            return 404, _PLAIN, b"not found\n"
        problem = await judge()
        return 503 if problem else 200, _PLAIN, f"{problem or 'ok'}\n".encode()

    async def why_not_ready(self) -> str:
        """Empty when nginx serves what it was told to, the version before a refused one included."""
        statement, applying = self._standing.statement, self._standing.applying
        if statement.is_leaving:
            return "the instance ends"
        if not statement.live:
            return f"no version is served yet: {statement.problem or statement.refusal or 'none came'}"
        found = await self._data_plane.version()
        # Old workers answer until the new ones are there.
        return "" if found and found in (statement.live, applying) else f"nginx serves {found or 'nothing'}"

    async def why_not_healthy(self) -> str:
        """Empty as long as a restart would better nothing."""
        if self._standing.statement.is_leaving:
            return ""
        if asyncio.get_running_loop().time() - self._standing.looked_at > _LONGEST_TURN:
            return "the agent is stuck"
        if not self._data_plane.is_nginx_wanted:
            return ""
        if self._data_plane.nginx_pid is None:
            return "nginx does not run"
        return "" if await self._data_plane.version() is not None else "nginx does not answer"

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
