"""What is done of HTTP, and of ext_proc, with requests of external pickers besides plain exchanges."""

import asyncio

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_NAMESPACE,
    SERVED_KEY,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Phase,
    SetHeader,
    TrailersAnswer,
)
from tests.nginx.ext_proc import Stage, as_the_field_does, picks
from tests.nginx.scene import Scene
from tests.nginx.servers import Request, connect, exchange, reset

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

ASKED = (
    b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Pod: a\r\n\r\nhello"


# WebSockets.


async def _echo(request: Request, writer: asyncio.StreamWriter) -> None:
    """Agrees, says the first word, and gives back what comes, until it is told to end."""
    writer.write(AGREED)
    while (data := await request.beyond()) and data != b"end":
        writer.write(data)
    writer.close()


async def test_websocket_is_picked_for_and_its_messages_pass_without_the_picker(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.receive()
        await stage.send(picks(scene.a.address, x_picked="yes"))
        await stage.receive()
        await stage.send(HeadersAnswer(Phase.RESPONSE, Changes(set=(SetHeader("x-picker", b"yes"),))))
        while await stage.receive() is not None:
            pass

    scene.play, scene.answer = play, _echo
    async with asyncio.timeout(15), connect(scene.gateway.port) as (reader, writer):
        writer.write(ASKED % b"close.test")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"\r\nupgrade: websocket\r\n" in head
        assert b"\r\nx-picker: yes\r\n" in head
        assert await reader.readexactly(5) == b"hello"
        message = b"\0\xff" * 200_000
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        writer.write(b"end")
        assert await reader.read() == b""
    (request,) = scene.a.requests
    assert (request.target, request.values("x-picked"), request.values("upgrade")) == (
        "/v1/realtime?model=m",
        ["yes"],
        ["websocket"],
    )
    (asked, _), (answered, metadata), *rest = (await scene.stage()).parts
    assert isinstance(asked, HeadersPart)
    assert asked.end_of_stream
    assert isinstance(answered, HeadersPart)
    assert answered.headers[0] == (":status", b"101")
    assert metadata == {ENDPOINT_NAMESPACE: {SERVED_KEY: scene.a.address}}
    assert [part for part, _ in rest] == [BodyPart(Phase.RESPONSE, b"", end_of_stream=True)]


async def test_websocket_that_is_refused_is_an_answer_like_any_other(scene: Scene) -> None:
    got = await exchange(scene.gateway.port, (ASKED % b"close.test").replace(b"Upgrade\r\n", b"Upgrade, close\r\n"))
    assert got.startswith(b"HTTP/1.1 200 ")
    stage = await scene.stage()
    assert b'"server"' in b"".join(part.chunk for part, _ in stage.parts if isinstance(part, BodyPart))


async def test_websocket_goes_to_the_next_endpoint_when_one_fails(scene: Scene) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (reset if request.server == "a" else _echo)(request, writer)

    scene.play, scene.answer = as_the_field_does(scene.a.address, scene.b.address), answer
    async with asyncio.timeout(15), connect(scene.gateway.port) as (reader, writer):
        writer.write(ASKED % b"close.test")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"end")
        await reader.read()
    assert len(scene.b.requests) == 1


async def test_hang_up_of_a_websocket_reaches_the_endpoint_and_the_picker(scene: Scene) -> None:
    gone = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(AGREED)
        await request.hung_up()
        gone.set()

    scene.answer = answer
    async with asyncio.timeout(15):
        async with connect(scene.gateway.port) as (reader, writer):
            writer.write(ASKED % b"close.test")
            await reader.readuntil(b"hello")
        await gone.wait()
        await scene.stage()


@pytest.mark.parametrize(("host", "status"), [(b"close.test", b"503"), (b"open.test", b"101")])
async def test_failure_mode_decides_over_a_websocket_too(scene: Scene, host: bytes, status: bytes) -> None:
    async def play(stage: Stage) -> None:
        await stage.context.abort(14, "gone")

    scene.play, scene.answer = play, _echo
    async with asyncio.timeout(15), connect(scene.gateway.port) as (reader, writer):
        writer.write(ASKED % host)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %b " % status)
        writer.write(b"end")


# Trailers, and modes.


async def test_trailers_of_a_model_server_end_its_answer_and_go_no_further(scene: Scene) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        writer.write(head + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")

    scene.answer = answer
    got = await exchange(
        scene.gateway.port,
        b"GET /v1/x HTTP/1.1\r\nHost: close.test\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n",
    )
    stage = await scene.stage()
    assert b"hello" in got
    assert b"x-sum" not in got.lower()
    pieces = [part for part, _ in stage.parts if isinstance(part, BodyPart) and part.phase is Phase.RESPONSE]
    assert b"".join(part.chunk for part in pieces) == b"hello"
    assert [part.end_of_stream for part in pieces] == [False] * (len(pieces) - 1) + [True]


async def test_trailers_of_a_request_end_its_body_and_go_no_further(scene: Scene) -> None:
    await exchange(
        scene.gateway.port,
        b"POST /v1/x HTTP/1.1\r\nHost: close.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    assert (scene.a.requests[0].body, scene.a.requests[0].values("x-sum")) == (b"hello", [])


async def test_answers_to_trailers_that_were_not_sent_change_nothing(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        changes = Changes(set=(SetHeader("x-late", b"1"),))
        await stage.send(TrailersAnswer(Phase.REQUEST, changes))
        _, body = await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.echo(Phase.REQUEST, body)
        await stage.send(TrailersAnswer(Phase.REQUEST, changes))
        _, body = await stage.response()
        await stage.send(TrailersAnswer(Phase.RESPONSE, changes))
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        await stage.echo(Phase.RESPONSE, body)

    scene.play = play
    got = await scene.post(b"abc")
    assert (got.status_code, got.json()["size"], "x-late" in got.headers) == (200, 3, False)
    assert scene.a.requests[0].values("x-late") == []


async def test_picker_that_asks_for_another_mode_is_sent_all_as_before(scene: Scene) -> None:
    wanted = ProcessingMode(
        response_header_mode=ProcessingMode.SKIP,
        request_body_mode=ProcessingMode.NONE,
        response_body_mode=ProcessingMode.NONE,
    )

    async def play(stage: Stage) -> None:
        await stage.receive()
        message = ProcessingResponse.FromString(encode_answer(picks(scene.a.address)))
        message.mode_override.CopyFrom(wanted)
        await stage.send_raw(message.SerializeToString())
        part = await stage.receive()
        assert isinstance(part, BodyPart)
        await stage.echo(Phase.REQUEST, part.chunk)
        _, body = await stage.response()
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        await stage.echo(Phase.RESPONSE, body)

    scene.play = play
    assert (await scene.post(b"abc")).json()["size"] == 3
    assert {part.phase for part, _ in (await scene.stage()).parts} == {Phase.REQUEST, Phase.RESPONSE}


async def test_target_that_cannot_be_read_is_the_clients_mistake(scene: Scene) -> None:
    answer = await exchange(
        scene.gateway.port, b"GET /\xc3\xa4?\xff HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the request cannot be read" in answer
    assert not scene.a.requests + scene.b.requests
