"""A backend that speaks HTTP/2 without TLS, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError


@asynccontextmanager
async def serve_http2() -> AsyncIterator[str]:
    """Its address. It answers each request with what arrived, as JSON, and ends a connection that breaks a rule."""
    open_now: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            await _converse(reader, writer)
        except (ProtocolError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled by the end of the server alone; asyncio would report a task of a stream that ends so
        finally:
            open_now.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
    connection.initiate_connection()
    headers: dict[int, list[list[str]]] = {}
    sizes: dict[int, int] = {}
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                headers[event.stream_id] = [[str(name), str(value)] for name, value in event.headers]
            elif isinstance(event, DataReceived):
                sizes[event.stream_id] = sizes.get(event.stream_id, 0) + len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                stream = event.stream_id
                shown = {"headers": headers[stream], "size": sizes.get(stream, 0)}
                connection.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
                connection.send_data(stream, json.dumps(shown).encode(), end_stream=True)
        writer.write(connection.data_to_send())
        await writer.drain()
