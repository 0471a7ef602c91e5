"""External pickers that stop within an answer: it goes on without them, or is cut, after the relay's patience."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from controller.extproc.messages import BodyAnswer, BodyPart, HeadersAnswer, Phase
from tests.nginx.ext_proc import Play, Stage, picks
from tests.nginx.scene import LATE, Scene
from tests.nginx.servers import Request, response

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def relay_options() -> Sequence[str]:
    # Without pings: a picker on grpc.aio ends the connection after a few, and with that the wait.
    return ("--silence", "60")


def _in_the_response(scene: Scene, then: Play) -> Play:
    async def play(stage: Stage) -> None:
        _, body = await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.echo(Phase.REQUEST, body)
        await stage.receive()
        await then(stage)

    return play


async def _reads_and_says_nothing(stage: Stage) -> None:
    await stage.send(HeadersAnswer(Phase.RESPONSE))
    while await stage.receive() is not None:
        pass


async def _stops_reading(stage: Stage) -> None:
    await stage.send(HeadersAnswer(Phase.RESPONSE))
    await asyncio.Event().wait()


async def test_large_answer_goes_on_without_a_picker_that_takes_no_more(scene: Scene) -> None:
    body = b"0123456789" * 500_000

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body))

    scene.play, scene.answer = _in_the_response(scene, _stops_reading), answer
    got = await scene.post()
    assert (got.status_code, got.content == body) == (200, True)


_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_events_go_on_without_a_picker_that_gives_nothing_back(scene: Scene) -> None:
    seen = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_EVENTS + _chunk(b"data: 1\n\n"))
        await seen.wait()
        writer.write(_chunk(b"data: 2\n\n") + _chunk(b""))

    scene.play, scene.answer = _in_the_response(scene, _reads_and_says_nothing), answer
    events = []
    async with (
        asyncio.timeout(10),
        scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "close.test"}) as got,
    ):
        async for event in got.aiter_raw():
            events.append(event)
            seen.set()
    assert events == [b"data: 1\n\n", b"data: 2\n\n"]


async def test_events_that_were_changed_are_cut_when_their_picker_gives_no_more_back(scene: Scene) -> None:
    seen = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_EVENTS + _chunk(b"data: 1\n\n"))
        await seen.wait()
        writer.write(_chunk(b"data: 2\n\n"))
        await request.hung_up()

    async def then(stage: Stage) -> None:
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        await stage.receive()
        await stage.send(BodyAnswer(Phase.RESPONSE, b"data: one\n\n", is_streamed=True))
        await _reads_and_says_nothing(stage)

    async def read() -> None:
        async with scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "close.test"}) as got:
            async for event in got.aiter_raw():
                events.append(event)
                seen.set()

    scene.play, scene.answer = _in_the_response(scene, then), answer
    events: list[bytes] = []
    async with asyncio.timeout(10):
        with pytest.raises(httpx.RemoteProtocolError):
            await read()
    assert events == [b"data: one\n\n"]


async def test_silence_of_a_model_server_is_no_fault_of_a_picker_that_changes_events(scene: Scene) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(_EVENTS + _chunk(b"1"))
        await asyncio.wait({asyncio.create_task(request.hung_up())}, timeout=LATE * 1.5)
        writer.write(_chunk(b"2") + _chunk(b""))

    async def then(stage: Stage) -> None:
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        while isinstance(part := await stage.receive(), BodyPart):
            changed = part.chunk.replace(b"1", b"one, ").replace(b"2", b"two")
            await stage.send(BodyAnswer(Phase.RESPONSE, changed, is_streamed=True, end_of_stream=part.end_of_stream))

    scene.play, scene.answer = _in_the_response(scene, then), answer
    assert (await scene.post()).text == "one, two"
