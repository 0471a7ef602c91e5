"""Connections to endpoints over HTTP/2."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.settings import SettingCodes, Settings

from controller.relay.asked import Exchange, Head
from controller.relay.endpoints import Endpoints
from controller.relay.errors import EndpointFailed

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


class _NoBody:
    def whole(self) -> tuple[bytes, ...]:
        return ()

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self.whole():
            yield piece


@asynccontextmanager
async def _asking() -> AsyncIterator[tuple[Endpoints, str]]:
    server = await asyncio.get_running_loop().create_server(_OneByOne, "127.0.0.1", 0)
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
