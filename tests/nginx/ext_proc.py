"""An external endpoint picker that a test plays: a server of ext_proc over grpc.aio."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from controller.extproc.decoding import decode_part
from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    SERVICE,
    Answer,
    BodyAnswer,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Metadata,
    Part,
    Phase,
    SetHeader,
    TrailersPart,
)
from controller.extproc.wire import chunks_of
from tests.nginx import certificates


@dataclass
class Stage:
    """One stream, as the picker sees it."""

    context: grpc.aio.ServicerContext
    parts: list[tuple[Part, Metadata]] = field(default_factory=list)
    """Everything that came, in order."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the stream ended, however it did."""
    outcome: str = ""
    """`closed` when the other end said that it was done, `cancelled` when it gave up."""
    _ahead: Part | None = None
    """The first part, where it was looked at and not received yet."""

    async def receive(self) -> Part | None:
        """The next part; None at the end."""
        if self._ahead is not None:
            part, self._ahead = self._ahead, None
            return part
        data = await self.context.read()
        if data is grpc.aio.EOF:
            return None
        part, metadata = decode_part(data)
        self.parts.append((part, metadata))
        return part

    async def told(self) -> Metadata:
        """What comes with the first part, which is to be received after that."""
        self._ahead = await self.receive()
        return self.parts[0][1]

    async def request(self) -> tuple[HeadersPart, bytes]:
        """The whole request: its headers and its body."""
        return await self._whole(Phase.REQUEST)

    async def response(self) -> tuple[HeadersPart, bytes]:
        return await self._whole(Phase.RESPONSE)

    async def _whole(self, phase: Phase) -> tuple[HeadersPart, bytes]:
        head, body = await self.receive(), b""
        assert isinstance(head, HeadersPart), head
        assert head.phase is phase
        ended = head.end_of_stream
        while not ended:
            part = await self.receive()
            assert isinstance(part, BodyPart), part
            body, ended = body + part.chunk, part.end_of_stream
        return head, body

    async def send(self, answer: Answer, metadata: Metadata | None = None) -> None:
        await self.context.write(encode_answer(answer, metadata=metadata))

    async def send_raw(self, data: bytes) -> None:
        await self.context.write(data)

    async def echo(self, phase: Phase, body: bytes) -> None:
        """Give a body back as a stream of pieces."""
        pieces = list(chunks_of(body))
        for number, piece in enumerate(pieces):
            await self.send(BodyAnswer(phase, piece, is_streamed=True, end_of_stream=number == len(pieces) - 1))


Play = Callable[[Stage], Awaitable[None]]
"""What the picker does with a stream. It ends well when this returns."""


@dataclass
class Picker:
    """A picker that runs."""

    address: str
    stages: list[Stage] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    """Connections that streams came on."""

    @property
    def open(self) -> int:
        return sum(not stage.ended.is_set() for stage in self.stages)


def picks(*endpoints: str, **headers: str) -> HeadersAnswer:
    """Names endpoints, and sets headers of the request."""
    given = [SetHeader(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
    return HeadersAnswer(
        Phase.REQUEST, Changes(set=(SetHeader(ENDPOINT_KEY, ",".join(endpoints).encode()), *given)), clears_route=True
    )


def named(*endpoints: str) -> Metadata:
    return {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: ",".join(endpoints)}}


def as_the_field_does(*endpoints: str, **headers: str) -> Play:
    """A picker that answers when it has the whole request, and gives bodies back piece by piece."""

    async def play(stage: Stage) -> None:
        head, body = await stage.request()
        await stage.send(picks(*endpoints, **headers), named(*endpoints))
        if not head.end_of_stream:
            await stage.echo(Phase.REQUEST, body)
        while (part := await stage.receive()) is not None:
            match part:
                case HeadersPart():
                    await stage.send(HeadersAnswer(Phase.RESPONSE))
                case BodyPart():
                    await stage.send(
                        BodyAnswer(Phase.RESPONSE, part.chunk, is_streamed=True, end_of_stream=part.end_of_stream)
                    )
                case TrailersPart():
                    pass

    return play


@asynccontextmanager
async def serve_ext_proc(
    play: Play,
    *,
    tls: bool = True,
    address: str = "127.0.0.1:0",
    health: int | None = None,
    is_well: asyncio.Event | None = None,
    certificate: tuple[bytes, bytes] | None = None,
    most_streams: int | None = None,
) -> AsyncIterator[Picker]:
    """A picker that treats each stream so.

    With `tls` it shows `certificate`, a chain and its key, or one of its own making. `health` is what it says of
    itself, as a number of HealthCheckResponse, once `is_well` is set where there is one; None says that it knows no
    such question.
    """
    picker = Picker("")

    async def process(_: object, context: grpc.aio.ServicerContext) -> None:
        stage = Stage(context)
        picker.stages.append(stage)
        picker.peers.add(context.peer())
        try:
            await play(stage)
            stage.outcome = "closed"
        except asyncio.CancelledError:
            stage.outcome = "cancelled"
            raise
        finally:
            stage.ended.set()

    handler = grpc.stream_stream_rpc_method_handler(process)
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            *([("grpc.max_concurrent_streams", most_streams)] if most_streams else []),
        ]
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Process": handler})])
    if health is not None:

        async def check(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if is_well is not None:
                await is_well.wait()
            return bytes((8, health))

        checks = {"Check": grpc.unary_unary_rpc_method_handler(check)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", checks)])
    if tls:
        chain, key = certificate or certificates.certificate("picker")
        credentials = grpc.ssl_server_credentials([(key, chain)])
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    picker.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield picker
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await server.stop(0)
