"""Connections to endpoints over HTTP/2."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.settings import SettingCodes, Settings

from controller.relay.asked import Exchange, Head
from controller.relay.endpoints import Endpoints
from controller.relay.errors import EndpointFailed
from tests.nginx.servers import Request, response, serve

HEAD = Head(b"GET", b"/", b"h", b"http", (), has_body=False, length=None)


class _OneByOne(asyncio.Protocol):
    """Takes one stream on a connection, and never ends an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self._h2.send_headers(event.stream_id, [(":status", "200")])
        self._transport.write(self._h2.data_to_send())


class _Saying(asyncio.Protocol):
    """Answers each request with a block of headers, whatever is in it."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        self._fields = fields
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self._h2.send_headers(event.stream_id, self._fields, end_stream=True)
        self._transport.write(self._h2.data_to_send())

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


class _NoBody:
    def whole(self) -> tuple[bytes, ...]:
        return ()

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self.whole():
            yield piece


@asynccontextmanager
async def _asking(
    endpoint: Callable[[], asyncio.Protocol] = _OneByOne,
) -> AsyncIterator[tuple[Endpoints, str]]:
    server = await asyncio.get_running_loop().create_server(endpoint, "127.0.0.1", 0)
    endpoints = Endpoints()
    async with server, asyncio.timeout(10):
        try:
            yield endpoints, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            endpoints.close()


async def test_full_connection_is_joined_by_another() -> None:
    async with _asking() as (endpoints, address):

        async def ask() -> Exchange:
            return await endpoints.ask(address, HEAD, _NoBody(), speaks_http2=True)

        first = await ask()
        others = await asyncio.gather(*(ask() for _ in range(15)))
        assert {each.status for each in (first, *others)} == {200}
        with pytest.raises(EndpointFailed, match="takes no more streams"):
            await ask()
        first.close()
        assert (await ask()).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "200"), ("X-Accel-Redirect", "/secret")],
        [(":status", "200"), ("x-a", "1\r\nX-Accel-Redirect: /secret")],
        [(":status", "200"), ("x-a: 1\r\nx-b", "2")],
        [(":status", "200"), ("x-a", "\0")],
        [(":status", "000")],
        [(":status", "099")],
        [(":status", "20x")],
        [("x-a", "1")],
    ],
)
async def test_answer_that_breaks_the_rules_of_headers_is_a_failure(fields: list[tuple[str, str]]) -> None:
    saying = _Saying(*fields)
    async with _asking(lambda: saying) as (endpoints, address):
        with pytest.raises(EndpointFailed, match="the endpoint's answer has"):
            await endpoints.ask(address, HEAD, _NoBody(), speaks_http2=True)
        endpoints.close()
        await saying.ended.wait()


@pytest.mark.parametrize("status", ["000", "099"])
async def test_status_that_is_none_is_a_failure(status: str) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok", status=f"{status} What"))

    endpoints = Endpoints()
    async with serve(answer) as endpoint, asyncio.timeout(10):
        with pytest.raises(EndpointFailed, match="has the status"):
            await endpoints.ask(endpoint.address, HEAD, _NoBody(), speaks_http2=False)
    endpoints.close()
