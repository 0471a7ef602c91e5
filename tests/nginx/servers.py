"""Backends and clients of bare TCP, for what a well-behaved library would not send or would hide."""

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TURNS: Final = 10
"""Of the loop, from the acceptance of a connection to the first step of its task; asyncio takes five."""


@dataclass(frozen=True)
class Request:
    """A request as it arrived, its chunks put together."""

    method: str
    target: str
    """Path and query, byte for byte."""
    headers: tuple[tuple[str, str], ...]
    """In order, names lower-case."""
    body: bytes = field(repr=False)
    connection: int
    """Number of the connection that it came on."""
    server: str
    _reader: asyncio.StreamReader = field(repr=False, compare=False)

    async def hung_up(self) -> None:
        """Waits until the other side closes the connection."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    async def beyond(self) -> bytes:
        """Bytes that come behind it, where its protocol has changed; empty at the end."""
        return await self._reader.read(65536)

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Backend:
    """A server on a port of its own. It does not record what the picker asks, and answers it with 404."""

    address: str = ""
    requests: list[Request] = field(default_factory=list)
    lost: int = 0
    """Connections that ended, by whomever."""
    asked_names: list[str | None] = field(default_factory=list)
    """Names that clients asked for in TLS, one for each handshake."""
    metrics: str = ""
    """What it answers the picker that asks for metrics; empty: 404."""
    models: tuple[str, ...] = ()
    """What it lists for the picker that asks; empty: 404."""
    asked: list[str] = field(default_factory=list)
    """Targets of what the picker asked."""

    @property
    def connections(self) -> int:
        """How many connections brought requests."""
        return len({request.connection for request in self.requests})


async def describe(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answers with what arrived, as JSON."""
    shown = {
        "server": request.server,
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "size": len(request.body),
        "sha256": hashlib.sha256(request.body).hexdigest(),
    }
    writer.write(response(json.dumps(shown).encode(), "Content-Type: application/json"))


def response(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """An answer of known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
    """Resets the connection instead of an answer."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def close(request: Request, writer: asyncio.StreamWriter) -> None:
    """Closes the connection instead of an answer."""
    writer.close()


@asynccontextmanager
async def serve(
    answer: Answer = describe, *, name: str = "", host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Backend]:
    """A backend that treats each request so."""
    backend = Backend()
    if tls is not None:
        tls.sni_callback = lambda _, asked, __: backend.asked_names.append(asked)
    async with _listening(backend, answer, name=name, host=host, unix=None, tls=tls):
        yield backend


@asynccontextmanager
async def serve_picks(socket: Path, answer: Answer) -> AsyncIterator[Backend]:
    """In place of the picker: treats each pick so, and says yes to everything else that it is asked."""
    picks = Backend(address=str(socket))

    async def choose(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.values("x-infergate-pool"):
            await answer(request, writer)
        else:
            picks.requests.remove(request)
            writer.write(response())

    async with _listening(picks, choose, name="picker", unix=socket):
        yield picks


def server_tls(chain: bytes, key: bytes, *, clients: bytes | None = None) -> ssl.SSLContext:
    """For a server with this certificate. clients: the authority whose certificates clients must show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(chain + key)
        file.flush()
        context.load_cert_chain(file.name)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.decode())
    return context


def pick(request: Request, address: str) -> bytes:
    """The picker's answer that sends nginx to an endpoint."""
    (then,) = request.values("x-infergate-then")
    return response(b"", f"X-Accel-Redirect: {then}", f"X-Gateway-Destination-Endpoint: {address}")


@asynccontextmanager
async def _listening(
    backend: Backend,
    answer: Answer,
    *,
    name: str,
    host: str = "",
    unix: Path | None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    open_now: set[asyncio.Task[None]] = set()
    numbers = iter(range(1_000_000))

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        number = next(numbers)
        try:
            while (request := await _read_request(reader, connection=number, server=name)) is not None:
                if request.target == "/metrics" or request.values("user-agent") == ["infergate-picker"]:
                    backend.asked.append(request.target)
                    told = _told_the_picker(backend).get(request.target)
                    writer.write(response(told) if told else response(status="404 Not Found"))
                    continue
                backend.requests.append(request)
                await answer(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled by the end of the server alone; asyncio would report a task of a stream that ends so
        finally:
            backend.lost += 1
            open_now.discard(task)
            writer.transport.abort()

    if unix is not None:
        server = await asyncio.start_unix_server(converse, str(unix))
    else:
        server = await asyncio.start_server(converse, host, 0, backlog=1024, ssl=tls)
        backend.address = f"{f'[{host}]' if ':' in host else host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()
        # A connection that was accepted just now gets its task within the next turns of the loop.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for task in tuple(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


def _told_the_picker(backend: Backend) -> dict[str, bytes]:
    """By target; empty for 404."""
    listed = {"object": "list", "data": [{"id": model} for model in backend.models]}
    return {
        "/metrics": backend.metrics.encode(),
        "/v1/models": json.dumps(listed).encode() if backend.models else b"",
    }


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address on which connections are refused, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port: int, sent: bytes) -> bytes:
    """Everything that comes back for these bytes, up to the end of the connection."""
    async with asyncio.timeout(15), connect(port) as (reader, writer):
        writer.write(sent)
        return await reader.read()


async def _read_request(reader: asyncio.StreamReader, *, connection: int, server: str) -> Request | None:
    """None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = (line.split(":", 1) for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, value in pairs)
    known = dict(headers)
    if known.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(known.get("content-length", "0")))
    return Request(method, target, headers, body, connection, server, reader)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body
