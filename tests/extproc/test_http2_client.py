"""HTTP/2 as a client, against a server over the library h2, and against bytes that are no HTTP/2."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, WindowUpdated
from h2.settings import SettingCodes, Settings
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from controller.extproc.http2.asking import ask
from controller.extproc.http2.client import STREAM_WINDOW, Connection
from controller.extproc.http2.frames import StreamEnded as Ended
from controller.extproc.http2.frames import encoded

HEAD = [(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"x")]
ANSWER = [(":status", "200"), ("x-long", "v" * 300)]


class Server(asyncio.Protocol):
    """Shows what happens to a function, which answers by `h2`."""

    def __init__(self, happened: Callable[["Server", Event], None], settings: dict[SettingCodes, int]) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self._happened = happened
        self._settings = settings
        self.received: dict[int, bytes] = {}
        self.sent = 0
        """Bytes that flow control let go."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.local_settings = Settings(client=False, initial_values=self._settings)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived):
                self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
            self._happened(self, event)
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def send_as_allowed(self, stream: int, total: int) -> None:
        while self.sent < total and (room := self.h2.local_flow_control_window(stream)) > 0:
            size = min(room, 16_384, total - self.sent)
            self.h2.send_data(stream, b"x" * size, end_stream=self.sent + size == total)
            self.sent += size


@asynccontextmanager
async def connected(
    happened: Callable[[Server, Event], None], settings: dict[SettingCodes, int] | None = None
) -> AsyncIterator[tuple[Connection, Server]]:
    servers: list[Server] = []

    def made() -> Server:
        servers.append(Server(happened, settings or {}))
        return servers[0]

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(made, "127.0.0.1", 0)
    async with listening, asyncio.timeout(10):
        port = listening.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        await connection.ready
        try:
            yield connection, servers[0]
        finally:
            connection.close("the test ends")


def _echo(server: Server, event: Event) -> None:
    if isinstance(event, DataReceived):
        server.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    if isinstance(event, StreamEnded):
        server.h2.send_headers(event.stream_id, ANSWER)
        body = server.received.get(event.stream_id, b"")[:1000]
        server.h2.send_data(event.stream_id, body, pad_length=7)
        server.h2.send_headers(event.stream_id, [("x-trailer", "t")], end_stream=True)


@pytest.mark.parametrize("size", [0, 5, 70_000, 1_000_000])
async def test_body_of_any_size_is_taken(size: int) -> None:
    async with connected(_echo) as (connection, server):
        stream = await ask(connection, HEAD)
        await stream.send(b"y" * size, end=True)
        head, body = await stream.answer(), await stream.read()

        assert (dict(head)[b":status"], dict(head)[b"x-long"]) == (b"200", b"v" * 300)
        assert (body, server.received.get(1, b"")) == (b"y" * min(size, 1000), b"y" * size)
        assert await stream.read() == b""
        assert stream.trailers == [(b"x-trailer", b"t")]
        assert connection.streams == 0


async def test_streams_beyond_the_servers_limit_wait() -> None:
    open_now: set[int] = set()
    most = 0

    def happened(server: Server, event: Event) -> None:
        nonlocal most
        if isinstance(event, RequestReceived):
            open_now.add(event.stream_id)
            most = max(most, len(open_now))
        if isinstance(event, StreamEnded):
            open_now.discard(event.stream_id)
            _echo(server, event)

    async with connected(happened, {SettingCodes.MAX_CONCURRENT_STREAMS: 3}) as (connection, _):

        async def read() -> bytes:
            stream = await ask(connection, HEAD)
            await asyncio.sleep(0)
            await stream.send(b"a", end=True)
            await stream.answer()
            return await stream.read()

        assert await asyncio.gather(*(read() for _ in range(30))) == [b"a"] * 30
        assert most == 3


async def test_stream_that_nobody_reads_holds_a_window_and_stops_no_other() -> None:
    total = 5_000_000

    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived) and event.stream_id == 1:
            server.h2.send_headers(1, ANSWER)
        if isinstance(event, RequestReceived | WindowUpdated) and 1 in server.h2.streams:
            server.send_as_allowed(1, total)
        if isinstance(event, StreamEnded) and event.stream_id == 3:
            _echo(server, event)

    async with connected(happened) as (connection, server):
        unread = await ask(connection, HEAD, end=True)
        await unread.answer()
        other = await ask(connection, HEAD)
        await other.send(b"b", end=True)
        assert dict(await other.answer())[b":status"] == b"200"
        assert server.sent <= STREAM_WINDOW
        size = 0
        while data := await unread.read():
            size += len(data)
        assert size == total


async def test_connection_that_goes_away_lets_its_streams_end() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived) and event.stream_id == 1:
            server.flush()
            # h2 takes a connection for closed then; the frame is written by hand.
            server.transport.write(b"\0\0\x08\x07\0\0\0\0\0" + b"\0\0\0\x01" + b"\0\0\0\0")
        elif isinstance(event, StreamEnded) and event.stream_id == 1:
            _echo(server, event)

    async with connected(happened) as (connection, _):
        first = await ask(connection, HEAD)
        second = await ask(connection, HEAD)
        with pytest.raises(Ended) as refused:
            await second.answer()
        await first.send(b"a", end=True)
        await first.answer()

        assert refused.value.is_untouched
        assert await first.read() == b"a"
        with pytest.raises(Ended):
            await ask(connection, HEAD)


async def test_reset_of_a_stream_leaves_the_others() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived) and event.stream_id == 1:
            server.h2.reset_stream(1, 8)
        elif isinstance(event, StreamEnded):
            _echo(server, event)

    async with connected(happened) as (connection, _):
        first, second = await ask(connection, HEAD), await ask(connection, HEAD)
        with pytest.raises(Ended, match="code 8"):
            await first.answer()
        await second.send(b"a", end=True)
        await second.answer()
        assert (await second.read(), connection.streams) == (b"a", 0)


async def test_server_that_never_had_a_table_need_not_give_it_up() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived):
            block = encoded([(b":status", b"200"), (b"x", b"y")])
            server.transport.write(b"\0\0%c\x01\x05\0\0\0\x01" % len(block) + block)

    async with connected(happened) as (connection, _):
        stream = await ask(connection, HEAD, end=True)
        assert await stream.answer() == [(b":status", b"200"), (b"x", b"y")]
        assert await stream.read() == b""


async def test_ping_is_answered() -> None:
    async with connected(_echo) as (connection, _):
        await connection.ping()
        await asyncio.gather(connection.ping(), connection.ping())


async def test_lost_connection_ends_its_streams() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived):
            server.transport.abort()

    async with connected(happened) as (connection, _):
        stream = await ask(connection, HEAD)
        with pytest.raises(Ended):
            await stream.answer()
        with pytest.raises(Ended):
            await stream.send(b"x")
        with pytest.raises(Ended):
            await connection.ping()


async def test_empty_headers_break_the_connection() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived):
            server.transport.write(b"\0\0\0\x01\x04\0\0\0\x01")

    async with connected(happened) as (connection, _):
        stream = await ask(connection, HEAD)
        with pytest.raises(Ended, match="a block of headers is empty"):
            await stream.answer()


async def test_empty_trailers_end_the_stream() -> None:
    def happened(server: Server, event: Event) -> None:
        if isinstance(event, RequestReceived):
            block = encoded([(b":status", b"200")])
            server.transport.write(b"\0\0%c\x01\x04\0\0\0\x01" % len(block) + block)
            server.transport.write(b"\0\0\0\x01\x05\0\0\0\x01")

    async with connected(happened) as (connection, _):
        stream = await ask(connection, HEAD)
        assert await stream.answer() == [(b":status", b"200")]
        assert (await stream.read(), stream.trailers) == (b"", [])


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_the_connection_in_another_way(data: bytes, settled: bool) -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.connection_made(_Nowhere())
        if settled:
            connection.data_received(b"\0\0\0\x04\0\0\0\0\0")
            await ask(connection, HEAD)
        connection.data_received(data)
        connection.close("the test ends")

    asyncio.run(scenario())


class _Nowhere(asyncio.Transport):
    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=40_000)), max_size=3))
def test_headers_are_coded_as_others_read_them(fields: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(max_header_list_size=10**6)
    assert [(bytes(name), bytes(value)) for name, value in decoder.decode(encoded(fields), raw=True)] == fields
