"""Questions to nginx and to the picker over their Unix sockets, each on a connection of its own.

A fresh connection matters: one that is kept open would go on talking to a worker that a reload has retired.
"""

import asyncio
import os
from dataclasses import dataclass

from controller.agent.state import CONTROL_SOCKET, State
from controller.bundle import VERSION_PATH


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 when nothing did."""

    status: int
    body: bytes = b""


async def ask(state: State, path: str, *, socket: str, timeout: float) -> Answer:
    """GET `path` on a socket named relative to the state directory. Waits up to `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(state, path, socket)
    except (OSError, TimeoutError, ValueError):
        return Answer(0)


async def version(state: State, *, timeout: float = 1.0) -> str | None:
    """The version of the nginx worker that happened to accept; None when none answered."""
    answer = await ask(state, VERSION_PATH, socket=CONTROL_SOCKET, timeout=timeout)
    return answer.body.decode(errors="replace").strip() if answer.status == 200 else None


async def _exchange(state: State, path: str, socket: str) -> Answer:
    # A socket's address holds 108 bytes. Through the descriptor of the directory it is short wherever that is.
    directory = os.open(state.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{socket}")
    finally:
        os.close(directory)
    try:
        # HTTP/1.0: the answer ends with the connection and is never chunked.
        writer.write(f"GET {path} HTTP/1.0\r\nHost: infergate\r\n\r\n".encode())
        head, _, body = (await reader.read(65536) + await reader.read()).partition(b"\r\n\r\n")
        return Answer(int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.") else 0, body)
    finally:
        writer.close()
