"""Says to the supervisor that this process is not stuck: whoever answers has a loop that turns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from controller.dialer.follow import bound

_PATIENCE: Final = 5.0
"""Seconds for a question and its answer."""


@asynccontextmanager
async def answering_health(path: Path) -> AsyncIterator[None]:
    """Answers on a Unix socket, which has nothing but `/healthz`. Raises OSError when it cannot be bound."""
    server = await asyncio.start_unix_server(_answer, sock=bound(path))
    try:
        yield
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            is_known = head.startswith(b"GET /healthz ")
            status, said = ("200 OK", "ok\n") if is_known else ("404 Not Found", "not found\n")
            length = f"content-type: text/plain\r\ncontent-length: {len(said)}"
            writer.write(f"HTTP/1.1 {status}\r\n{length}\r\nconnection: close\r\n\r\n{said}".encode())
            await writer.drain()
    writer.close()
