"""Requests to endpoints: connections that are kept, over HTTP/1.1 or HTTP/2.

Without TLS, or to a socket of the dialer, which speaks it and knows the endpoint by its certificate.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from controller.bundle import dialed_socket
from controller.extproc.http2 import client as http2
from controller.extproc.http2.frames import Fields as BlockFields
from controller.extproc.http2.frames import StreamEnded
from controller.relay import http1
from controller.relay.errors import EndpointFailed
from controller.relay.http1 import Fields

CONNECT_TIMEOUT: Final = 2.0
"""Seconds; as NGINX waits for a backend."""
_UNIX: Final = "unix:"
"""Begins a place that is a socket."""
DIALED_TIMEOUT: Final = 8.0
"""As above, through the dialer; longer than its own."""
IDLE: Final = 4.0
"""Seconds. Below the 5 s after which model servers on uvicorn close an idle connection, as in `keepalive.conf`."""
_MOST_IDLE: Final = 64
_Kind = TypeVar("_Kind", bound=asyncio.Protocol)


@dataclass(frozen=True)
class Head:
    """The beginning of a request to an endpoint."""

    method: bytes
    target: bytes
    authority: bytes
    scheme: bytes
    fields: Fields
    """Without `host` and what belongs to a connection; with `content-length` where it is known."""
    has_body: bool
    length: int | None
    """Bytes of the body, where it is known."""


class Body(Protocol):
    """The body of a request. Each try reads it from its beginning."""

    def whole(self) -> Sequence[bytes] | None:
        """All of it, where it is there and in memory. Raises PickerFailed as `pieces` does."""
        ...

    def pieces(self) -> AsyncIterator[bytes]: ...


class Exchange(Protocol):
    """A request that was sent to an endpoint."""

    status: int

    @property
    def fields(self) -> Fields: ...

    async def read(self) -> bytes:
        """A piece of the answer's body; empty at its end. Raises EndpointFailed when it breaks off."""
        ...

    def take(self) -> tuple[bytes, bool]:
        """What came of the body already, and whether it has ended with that."""
        ...

    def close(self) -> None:
        """Keep the connection where the answer has ended, else end it."""
        ...


def place_of(address: str, *, stem: str) -> str:
    """Where an endpoint is reached: its address, or the socket of the dialer where those have a stem."""
    return f"{_UNIX}{dialed_socket(stem, address)}" if stem else address


class Endpoints:
    """Connections to endpoints, by the place where they are reached."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[http1.Connection]] = {}
        self._http2: dict[str, asyncio.Task[http2.Connection]] = {}

    async def ask(self, address: str, head: Head, body: Body, *, speaks_http2: bool) -> Exchange:
        """Send a request, and wait until its answer begins.

        Raises EndpointFailed when the endpoint cannot be reached, or ends the connection before.
        """
        if speaks_http2:
            return await self._ask_http2(address, head, body)
        if (kept := self._kept(address)) is not None:
            try:
                return await self._ask_http1(kept, address, head, body)
            except EndpointFailed:
                pass  # closed in the same moment; the endpoint itself is asked again
        return await self._ask_http1(await connected(http1.Connection, address), address, head, body)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        for task in self._http2.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close("the relay ends")
            task.cancel()

    def forget(self, addresses: Sequence[str]) -> None:
        """Close what is kept to these addresses."""
        endings = tuple(dialed_socket("", address) for address in addresses)
        dialed = [place for place in {*self._idle, *self._http2} if place.endswith(endings)]
        for address in (*addresses, *dialed):
            for connection in self._idle.pop(address, ()):
                connection.close()
            task = self._http2.get(address)
            if task is not None and task.done() and not task.cancelled() and task.exception() is None:
                if task.result().streams == 0:
                    task.result().close("the endpoint is gone")
                del self._http2[address]

    def keep(self, address: str, connection: http1.Connection) -> None:
        idle = self._idle.setdefault(address, deque())
        connection.idle_since = asyncio.get_running_loop().time()
        idle.append(connection)
        while len(idle) > _MOST_IDLE:
            idle.popleft().close()

    def sweep(self) -> None:
        """Close connections that are idle for too long."""
        now = asyncio.get_running_loop().time()
        for address, idle in list(self._idle.items()):
            while idle and (now - idle[0].idle_since > IDLE or not idle[0].is_open):
                idle.popleft().close()
            if not idle:
                del self._idle[address]

    def _kept(self, address: str) -> http1.Connection | None:
        idle = self._idle.get(address)
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.is_open and now - connection.idle_since <= IDLE:
                return connection
            connection.close()
        return None

    async def _ask_http1(self, connection: http1.Connection, address: str, head: Head, body: Body) -> Exchange:
        connection.begin(method=head.method)
        whole = body.whole() if head.has_body else ()
        if whole is not None and (head.length is not None or not head.has_body):
            try:
                connection.write([_http1_head(head), *whole])
                await connection.answer()
            except BaseException:
                connection.close()
                raise
            return _Http1Exchange(self, connection, address, None)
        sending = asyncio.create_task(_send_http1(connection, head, body))
        try:
            await _first_of(connection.answer(), sending)
        except BaseException:
            sending.cancel()
            connection.close()
            raise
        return _Http1Exchange(self, connection, address, sending)

    async def _ask_http2(self, address: str, head: Head, body: Body) -> Exchange:
        for _ in range(2):
            connection = await self._connection(address)
            try:
                stream = await connection.ask(_http2_fields(head), end=not head.has_body)
                break
            except StreamEnded as problem:
                self._http2.pop(address, None)
                failure = EndpointFailed(str(problem))
        else:
            raise failure
        sending = asyncio.create_task(_send_http2(stream, head, body))
        try:
            await _first_of(stream.answer(), sending)
            fields = await stream.answer()
        except BaseException as problem:
            sending.cancel()
            stream.reset()
            if isinstance(problem, StreamEnded):
                raise EndpointFailed(str(problem)) from problem
            raise
        return _Http2Exchange(stream, fields, sending)

    async def _connection(self, address: str) -> http2.Connection:
        """One for each endpoint; those who ask while it is opened wait for the same."""
        task = self._http2.get(address)
        usable = task is not None and (
            not task.done() or (not task.cancelled() and task.exception() is None and task.result().failure is None)
        )
        if task is None or not usable:
            task = self._http2[address] = asyncio.create_task(_connected_http2(address))
        return await asyncio.shield(task)


@dataclass
class _Http1Exchange:
    _owner: Endpoints
    _connection: http1.Connection
    _address: str
    _sending: asyncio.Task[None] | None
    """None where all was written at once."""
    status: int = field(init=False)
    fields: Fields = field(init=False)

    def __post_init__(self) -> None:
        self.status, self.fields = self._connection.status, self._connection.fields

    async def read(self) -> bytes:
        return await self._connection.read()

    def take(self) -> tuple[bytes, bool]:
        return self._connection.take(), self._connection.has_ended

    def close(self) -> None:
        connection, sending = self._connection, self._sending
        if sending is None:
            is_sent = connection.has_sent
        else:
            is_sent = sending.done() and not sending.cancelled() and sending.exception() is None
        if is_sent and connection.has_ended and connection.keeps and connection.is_open:
            self._owner.keep(self._address, connection)
            return
        if sending is not None:
            sending.cancel()
        connection.close()


@dataclass
class _Http2Exchange:
    _stream: http2.Asked
    _head: BlockFields
    _sending: asyncio.Task[None]
    status: int = field(init=False)
    fields: Fields = field(init=False)

    def __post_init__(self) -> None:
        status = dict(self._head).get(b":status", b"")
        self.status = int(status) if status.isdigit() and len(status) == 3 else 502
        self.fields = [(name, value) for name, value in self._head if not name.startswith(b":")]

    async def read(self) -> bytes:
        try:
            return await self._stream.read()
        except StreamEnded as problem:
            raise EndpointFailed(str(problem)) from problem

    def take(self) -> tuple[bytes, bool]:
        return b"", False

    def close(self) -> None:
        self._sending.cancel()
        self._stream.reset()


async def _first_of(beginning: Coroutine[Any, Any, object], sending: asyncio.Task[None]) -> None:
    """Waits for the answer's beginning. An answer may come before the request has ended.

    What stops the request before raises here, unless it is the endpoint that takes no more: then its answer tells.
    """
    answer = asyncio.create_task(beginning)
    try:
        await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and (problem := sending.exception()) and not answer.done():
            if not isinstance(problem, EndpointFailed):
                raise problem
            # It has ended the connection; what it said before that is there, or nothing is.
            await asyncio.wait({answer}, timeout=1.0)
            if not answer.done():
                raise problem
        await answer
    finally:
        answer.cancel()
        if answer.done() and not answer.cancelled():
            answer.exception()


async def _send_http1(connection: http1.Connection, head: Head, body: Body) -> None:
    start = _http1_head(head)
    is_chunked = head.length is None
    async for piece in body.pieces():
        if piece:
            # The head travels with the first piece.
            await connection.send(start + (http1.chunk(piece) if is_chunked else piece))
            start = b""
    end = http1.LAST_CHUNK if is_chunked else b""
    if start or end:
        await connection.send(start + end)


def _http1_head(head: Head) -> bytes:
    fields = [(b"host", head.authority), *head.fields]
    if head.has_body and head.length is None:
        fields.append((b"transfer-encoding", b"chunked"))
    return http1.request_head(head.method, head.target, fields)


async def _send_http2(stream: http2.Asked, head: Head, body: Body) -> None:
    if not head.has_body:
        return
    try:
        async for piece in body.pieces():
            if piece:
                await stream.send(piece)
        await stream.send(b"", end=True)
    except StreamEnded as problem:
        raise EndpointFailed(str(problem)) from problem


def _http2_fields(head: Head) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":path", head.target),
        (b":authority", head.authority),
        *head.fields,
    ]


async def connected(kind: Callable[[], _Kind], place: str) -> _Kind:
    """A connection for HTTP/1.1. Raises EndpointFailed when the endpoint cannot be reached in time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await _opened(kind, place)
    except (OSError, TimeoutError) as problem:
        raise EndpointFailed(f"{place} cannot be reached: {str(problem) or 'not in time'}") from problem


async def _connected_http2(address: str) -> http2.Connection:
    # The dialer takes longer for a backend that it has to know first, and hangs up when it gives up.
    patience = DIALED_TIMEOUT if address.startswith(_UNIX) else CONNECT_TIMEOUT
    try:
        async with asyncio.timeout(patience):
            connection = await _opened(http2.Connection, address)
            await connection.ready
    except (OSError, TimeoutError, StreamEnded) as problem:
        raise EndpointFailed(f"{address} cannot be reached: {str(problem) or 'not in time'}") from problem
    return connection


async def _opened(kind: Callable[[], _Kind], place: str) -> _Kind:
    loop = asyncio.get_running_loop()
    if place.startswith(_UNIX):
        _, connection = await loop.create_unix_connection(kind, place.removeprefix(_UNIX))
    else:
        _, connection = await loop.create_connection(kind, *host_and_port(place))
    return connection


def host_and_port(address: str) -> tuple[str, int]:
    """Of `ip:port`, an IPv6 address in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
