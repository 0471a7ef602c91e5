"""A server of gRPC, and what a client is told. Messages are bytes; the service has one method of each kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

SERVICE = "test.Shop"


@dataclass
class CallServer:
    """A server on a port of its own."""

    address: str = ""
    seen: list[str] = field(default_factory=list)
    """Methods that were called, with their service."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client gave up a stream."""


@asynccontextmanager
async def serve_calls(
    name: str = "", *, service: str = SERVICE, tls: tuple[bytes, bytes] | None = None
) -> AsyncIterator[CallServer]:
    """In TLS with this chain and key, or in plain text.

    Methods: Describe (what arrived, as JSON), Fail, Count (bytes of a stream), Repeat, Wait (without end), Echo.
    """
    shown = CallServer()

    async def describe(request: bytes, context: Any) -> bytes:  # Any: grpc has no types
        shown.seen.append("Describe")
        context.set_trailing_metadata((("x-trailer", "last"), ("x-bytes-bin", b"\x00\xff")))
        headers = sorted((key, str(value)) for key, value in context.invocation_metadata())
        host = context._rpc_event.call_details.host if hasattr(context, "_rpc_event") else ""
        return json.dumps({"server": name, "headers": headers, "host": str(host), "size": len(request)}).encode()

    async def fail(request: bytes, context: Any) -> bytes:  # as above
        context.set_trailing_metadata((("x-trailer", "last"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "out of stock: 100 % gone")
        return b""

    async def count(requests: AsyncIterator[bytes], context: Any) -> bytes:  # as above
        return str(sum([len(item) async for item in requests])).encode()

    async def repeat(request: bytes, context: Any) -> AsyncIterator[bytes]:  # as above
        for number in range(int(request)):
            yield str(number).encode()

    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # as above
        async for item in requests:
            yield item

    async def wait(request: bytes, context: Any) -> None:  # as above
        await context.write(b"")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            shown.cancelled.set()
            raise

    server = grpc.aio.server()
    methods = {
        "Describe": grpc.unary_unary_rpc_method_handler(describe),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.stream_unary_rpc_method_handler(count),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
        "Wait": grpc.unary_stream_rpc_method_handler(wait),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        chain, key = tls
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    shown.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield shown
    finally:
        await server.stop(grace=0)


@dataclass(frozen=True)
class Told:
    """How a call ended."""

    code: Any
    """A grpc.StatusCode."""
    details: str
    trailers: dict[str, Any]
    body: Any = None
    """The message, as JSON where it is."""


@dataclass(frozen=True)
class Calls:
    """A client of a gateway."""

    channel: Any

    async def call(
        self, method: str = "Describe", message: bytes = b"", *, service: str = SERVICE, **headers: str
    ) -> Told:
        """A unary call, whatever becomes of it. Names of headers have `_` for `-`."""
        metadata = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        running = self.channel.unary_unary(f"/{service}/{method}")(message, metadata=metadata, timeout=15)
        try:
            answer = await running
        except grpc.aio.AioRpcError as error:
            return Told(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))
        return Told(grpc.StatusCode.OK, "", dict(await running.trailing_metadata()), json.loads(answer))


@asynccontextmanager
async def calls_to(port: int, *, host: str = "", certificate: bytes | None = None) -> AsyncIterator[Calls]:
    """A client of a port of the gateway: h2c without asking first, or TLS that trusts a certificate."""
    options = [("grpc.default_authority", host), ("grpc.ssl_target_name_override", host)] if host else []
    address = f"127.0.0.1:{port}"
    if certificate is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        trusted = grpc.ssl_channel_credentials(root_certificates=certificate)
        channel = grpc.aio.secure_channel(address, trusted, options=options)
    try:
        yield Calls(channel)
    finally:
        await channel.close()
