"""Requests whose endpoints fail before they answer: the external picker is asked for one that was not tried."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc
import httpx
import pytest
import pytest_asyncio

from controller.extproc.messages import (
    OWN_NAMESPACE,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
    TRIED_KEY,
    BodyAnswer,
    BodyPart,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    Phase,
)
from tests.nginx.ext_proc import Play, Stage, as_the_field_does, picks
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.scene import MODES, Scene
from tests.nginx.servers import Answer, Request, close, connect, describe, nobody, reset

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SIZES = [1, 200_000, 20_000_000]
"""Bytes of a body in one piece, of one in memory, and of one in files."""
PATIENCE: Final = 12
"""Seconds for all that the picker is asked of a request: the one that is played takes some for 20 MB."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dead() -> AsyncIterator[list[str]]:
    """Endpoints that cannot be reached."""
    with contextlib.ExitStack() as stack:
        yield sorted(stack.enter_context(nobody()) for _ in range(4))


@pytest.fixture(scope="module")
def relay_options() -> Sequence[str]:
    return ("--answer-timeout", str(PATIENCE))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(shared_scene: Scene, dead: list[str]) -> Scene:
    await shared_scene.gateway.apply(
        "more.yaml",
        picked_pool("many", *dead, shared_scene.a.address, pickers=[shared_scene.picker.address]),
        route("many", rule(to_pool("many")), hostnames=["many.test"]),
        route("slow", rule(to_pool("failclose"), timeouts={"request": "500ms"}), hostnames=["slow.test"]),
    )
    return shared_scene


def _failing(*names: str, how: Answer = reset) -> Answer:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (how if request.server in names else describe)(request, writer)

    return answer


def _hints(scene: Scene) -> list[Sequence[str] | None]:
    """What the picker was allowed, each time it was asked; None: everything."""
    told = [stage.parts[0][1] for stage in scene.picker.stages]
    return [metadata.get(SUBSET_NAMESPACE, {}).get(SUBSET_KEY) for metadata in told]


def _as_hinted(*first: str) -> Play:
    """A picker that obeys the hint, and names these as long as there is none."""

    async def play(stage: Stage) -> None:
        hint = (await stage.told()).get(SUBSET_NAMESPACE)
        await as_the_field_does(*(hint[SUBSET_KEY][:1] if hint else first))(stage)

    return play


def _body(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", [reset, close], ids=["reset", "close"])
async def test_picker_is_asked_for_an_endpoint_that_was_not_tried(scene: Scene, how: Answer, size: int) -> None:
    scene.play, scene.answer = _as_hinted(scene.a.address), _failing("a", how=how)
    got = await scene.post(_body(size))

    assert (got.status_code, got.json()["server"]) == (200, "b")
    assert [request.body == _body(size) for request in scene.b.requests] == [True]
    assert _hints(scene) == [None, [scene.b.address]]
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (line["endpoint"], line["tried"], line["tries"]) == (scene.b.address, f"{scene.a.address}=closed;", 2)


async def test_first_picker_is_told_what_failed_and_the_second_what_was_tried(scene: Scene) -> None:
    scene.play, scene.answer = _as_hinted(scene.a.address), _failing("a")
    assert (await scene.post(b"{}")).status_code == 200
    await scene.rests()

    first, second = scene.picker.stages
    tried = {OWN_NAMESPACE: {TRIED_KEY: f"{scene.a.address}=closed;"}}
    (head,) = [part for part, _ in first.parts if part.phase is Phase.RESPONSE]
    assert isinstance(head, HeadersPart)
    assert (dict(head.headers)[":status"], head.end_of_stream, first.parts[-1][1]) == (b"502", True, tried)
    assert first.outcome == "closed"
    assert second.parts[0][1] == {SUBSET_NAMESPACE: {SUBSET_KEY: [scene.b.address]}, **tried}
    assert [part for part, _ in second.parts][:2] == [part for part, _ in first.parts][:2]


@pytest.mark.parametrize("size", SIZES)
async def test_body_that_the_picker_changed_is_told_as_the_client_sent_it(scene: Scene, size: int) -> None:
    async def play(stage: Stage) -> None:
        _, body = await stage.request()
        await stage.send(picks(scene.a.address if len(scene.picker.stages) == 1 else scene.b.address))
        await stage.echo(Phase.REQUEST, body[: size // 2] + b"changed")
        await stage.receive()

    scene.play, scene.answer = play, _failing("a")
    assert (await scene.post(_body(size))).status_code == 200
    told = [
        b"".join(part.chunk for part, _ in stage.parts if isinstance(part, BodyPart)) for stage in scene.picker.stages
    ]
    assert [body == _body(size) for body in told] == [True, True]
    assert scene.b.requests[0].body == _body(size)[: size // 2] + b"changed"


@pytest.mark.parametrize("how", ["piece by piece", "at once", "with the headers"])
async def test_body_of_which_the_picker_has_a_part_is_told_whole(scene: Scene, dead: list[str], how: str) -> None:
    """It chooses at the first sight, and the endpoint fails while the body is on its way."""

    async def play(stage: Stage) -> None:
        if len(scene.picker.stages) > 1:
            await as_the_field_does(scene.a.address)(stage)
            return
        await stage.receive()
        chosen = picks(dead[0])
        if how == "with the headers":
            chosen = HeadersAnswer(Phase.REQUEST, chosen.changes, body=b"another", replaces=True)
        await stage.send(chosen)
        while isinstance(part := await stage.receive(), BodyPart):
            if how == "piece by piece":
                await stage.send(BodyAnswer(Phase.REQUEST, part.chunk.upper()))
            elif how == "at once":
                await stage.send(
                    BodyAnswer(Phase.REQUEST, part.chunk, is_streamed=True, end_of_stream=part.end_of_stream)
                )

    scene.play = play
    body = b"".join(b"%07d\n" % number for number in range(400_000))
    assert (await scene.post(body, host="many.test")).status_code == 200
    assert scene.a.requests[0].body == body


@pytest.mark.parametrize("named", [["a"], ["a", "b"]], ids=["it", "it and another"])
async def test_endpoint_that_was_tried_is_not_tried_twice(scene: Scene, named: list[str]) -> None:
    by_name = {"a": scene.a.address, "b": scene.b.address}

    async def play(stage: Stage) -> None:
        names = named if len(scene.picker.stages) > 1 else ["a"]
        await as_the_field_does(*(by_name[name] for name in names))(stage)

    scene.play, scene.answer = play, _failing("a")
    got = await scene.post(mode="FailOpen")
    assert got.status_code == (200 if "b" in named else 502)
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (line["tried"], len(scene.b.requests)) == (f"{scene.a.address}=closed;", len(named) - 1)
    assert len(scene.picker.stages) == 2


async def test_list_is_gone_along_before_the_picker_is_asked_again(scene: Scene, dead: list[str]) -> None:
    async def play(stage: Stage) -> None:
        named = {1: (dead[0], dead[2]), 2: (dead[1], dead[3]), 3: (scene.a.address,)}
        await as_the_field_does(*named[len(scene.picker.stages)])(stage)

    scene.play = play
    got = await scene.post(host="many.test")
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert _hints(scene) == [None, sorted([dead[1], dead[3], scene.a.address]), [scene.a.address]]
    assert line["tried"] == "".join(f"{dead[number]}=unreachable;" for number in (0, 2, 1, 3))
    assert (line["endpoint"], line["tries"]) == (scene.a.address, 5)


async def test_picker_is_asked_twice_more_and_no_more(scene: Scene, dead: list[str]) -> None:
    async def play(stage: Stage) -> None:
        await as_the_field_does(dead[len(scene.picker.stages) - 1])(stage)

    scene.play = play
    got = await scene.post(host="many.test")
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (got.status_code, got.json()["error"]["code"]) == (502, "endpoints_failed")
    assert line["tried"] == "".join(f"{address}=unreachable;" for address in dead[:3])
    assert _hints(scene) == [
        None,
        sorted([*dead[1:], scene.a.address]),
        sorted([*dead[2:], scene.a.address]),
    ]


async def test_picker_is_not_asked_again_where_nothing_is_left(scene: Scene) -> None:
    scene.play, scene.answer = as_the_field_does(scene.a.address, scene.b.address), reset
    assert (await scene.post()).status_code == 502
    assert _hints(scene) == [None]


def _immediate(status: int) -> Play:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(Immediate(status, b"not there"))

    return play


async def _ends(stage: Stage) -> None:
    await stage.request()


async def _aborts(stage: Stage) -> None:
    await stage.context.abort(grpc.StatusCode.INTERNAL, "nothing left")


async def _names_none(stage: Stage) -> None:
    await stage.request()
    await stage.send(HeadersAnswer(Phase.REQUEST))


async def _is_silent(stage: Stage) -> None:
    await stage.request()
    await asyncio.Event().wait()


REFUSALS: dict[str, Play] = {
    **{str(status): _immediate(status) for status in (400, 429, 503)},
    "end": _ends,
    "error": _aborts,
    "nobody": _names_none,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_refusal_of_what_is_left_is_not_the_clients_answer(scene: Scene, refusal: str, mode: str) -> None:
    async def play(stage: Stage) -> None:
        await (REFUSALS[refusal] if len(scene.picker.stages) > 1 else as_the_field_does(scene.a.address))(stage)

    scene.play, scene.answer = play, reset
    got = await scene.post(_body(200_000), mode=mode)
    assert (got.status_code, got.json()["error"]["code"]) == (502, "endpoints_failed")
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (line["tried"], line["tries"], len(scene.b.requests)) == (f"{scene.a.address}=closed;", 1, 0)
    assert len(scene.picker.stages) == 2


async def test_picker_that_is_late_with_what_is_left_is_waited_for_no_longer(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await (_is_silent if len(scene.picker.stages) > 1 else as_the_field_does(scene.a.address))(stage)

    scene.play, scene.answer = play, reset
    async with asyncio.timeout(2 * PATIENCE):
        assert (await scene.post()).status_code == 502


async def test_picker_that_is_done_after_its_choice_is_asked_again(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        _, body = await stage.request()
        await stage.send(picks(scene.a.address if len(scene.picker.stages) == 1 else scene.b.address))
        await stage.echo(Phase.REQUEST, body)

    scene.play, scene.answer = play, _failing("a")
    got = await scene.post(_body(200_000))
    assert (got.status_code, got.json()["server"], got.json()["size"]) == (200, "b", 200_000)


async def test_websocket_is_asked_for_again(scene: Scene) -> None:
    async def agree(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.server == "b":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        writer.close()

    scene.play, scene.answer = _as_hinted(scene.a.address), agree
    asked = (
        "GET /v1/realtime HTTP/1.1\r\nHost: close.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(15), connect(scene.gateway.port) as (reader, writer):
        writer.write(asked.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        said = await reader.readexactly(5)
    assert (head[:13], said) == (b"HTTP/1.1 101 ", b"hello")
    assert (len(scene.a.requests), _hints(scene)) == (1, [None, [scene.b.address]])


async def test_endpoint_that_takes_too_long_is_not_replaced(scene: Scene) -> None:
    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        await request.hung_up()

    scene.play, scene.answer = _as_hinted(scene.a.address), hang
    got = await scene.post(host="slow.test")
    await scene.rests()
    assert (got.status_code, len(scene.a.requests), len(scene.b.requests)) == (504, 1, 0)
    assert _hints(scene) == [None]


async def test_answer_that_breaks_off_is_not_asked_for_again(scene: Scene) -> None:
    async def begin(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    scene.play, scene.answer = _as_hinted(scene.a.address), begin
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.post()
    assert (len(scene.a.requests), len(scene.b.requests), _hints(scene)) == (1, 0, [None])


async def test_requests_without_a_body_are_asked_for_again(scene: Scene) -> None:
    scene.play, scene.answer = _as_hinted(scene.a.address), _failing("a")
    got = await scene.http.get("/v1/models", headers={"host": "close.test"})
    assert (got.status_code, got.json()["server"]) == (200, "b")
