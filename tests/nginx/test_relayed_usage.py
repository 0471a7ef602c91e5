"""What answers say of their tokens, read by the relay where an external picker chose."""

import asyncio
import gzip
import json

import httpx
import pytest
import pytest_asyncio

from controller.extproc.messages import (
    OWN_NAMESPACE,
    USAGE_KEY,
    BodyAnswer,
    BodyPart,
    Changes,
    HeadersAnswer,
    Phase,
    SetHeader,
)
from tests.nginx.ext_proc import Play, Stage, picks
from tests.nginx.gateway import client_of, until
from tests.nginx.resources import picker_policy
from tests.nginx.scene import Scene
from tests.nginx.servers import Request, exchange, response

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

WHOLE = b'{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}'
EVENTS = (
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3}}\n\ndata: [DONE]\n\n',
)
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
NONE = [None] * 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(shared_scene: Scene) -> Scene:
    """The policy of the pool that fails close has tokens read, that of the other has none."""
    await shared_scene.gateway.apply("policy.yaml", picker_policy("failclose", usage=True))
    return shared_scene


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """The scene, whose endpoints say of their tokens."""
    _says(scene, WHOLE)
    return scene


def _says(scene: Scene, *pieces: bytes, headers: tuple[str, ...] = (), end: bytes = b"0\r\n\r\n") -> None:
    """Both endpoints answer with a body: with its length where it is one piece, else in chunks."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(pieces) == 1:
            writer.write(response(pieces[0], *headers))
            return
        writer.write("\r\n".join(("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers)).encode() + b"\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(end)
        if not end:
            writer.close()

    scene.answer = answer


async def _tokens(scene: Scene, answer: httpx.Response) -> list[int | None]:
    line = await scene.gateway.logged(answer.headers["x-request-id"])
    return [line[name] for name in TOKENS]


def _says_of_usage(scene: Scene, is_read: object) -> Play:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address), {OWN_NAMESPACE: {USAGE_KEY: is_read}})
        await stage.send(BodyAnswer(Phase.REQUEST))

    return play


@pytest.mark.parametrize(
    ("pieces", "headers", "told"),
    [
        ((WHOLE,), (), [12, 8, 3]),
        (tuple(WHOLE[at : at + 1] for at in range(len(WHOLE))), (), [12, 8, 3]),
        (EVENTS, ("Content-Type: text/event-stream",), [12, None, 3]),
        ((b'{"usage":{"total_tokens":5},"results":[%b0]}' % (b"0," * 90_000),), (), [5, None, None]),
        ((gzip.compress(WHOLE),), ("Content-Encoding: gzip",), NONE),
        ((b'{"usage":{"prompt_tokens":"12","completion_tokens":-3}}',), (), NONE),
        ((b"{}",), (), NONE),
    ],
    ids=["whole", "by bytes", "stream", "before a list", "gzip", "no numbers", "nothing"],
)  # fmt: skip
async def test_tokens_are_logged_where_the_policy_of_the_pool_says_so(
    scene: Scene, pieces: tuple[bytes, ...], headers: tuple[str, ...], told: list[int | None]
) -> None:
    _says(scene, *pieces, headers=headers)
    async with scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "close.test"}) as answer:
        received = b"".join([piece async for piece in answer.aiter_raw()])
    assert received == b"".join(pieces)
    assert await _tokens(scene, answer) == told


async def test_answers_of_a_pool_that_does_not_ask_are_not_read(scene: Scene) -> None:
    assert await _tokens(scene, await scene.post(mode="FailOpen")) == NONE


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("mode", ["FailOpen", "FailClose"])
async def test_what_the_picker_says_of_a_request_counts_before_the_policy(
    scene: Scene, mode: str, is_read: bool
) -> None:
    scene.play = _says_of_usage(scene, is_read)
    assert await _tokens(scene, await scene.post(mode=mode)) == ([12, 8, 3] if is_read else NONE)


async def test_what_a_picker_says_in_words_is_nothing(scene: Scene) -> None:
    scene.play = _says_of_usage(scene, "true")
    assert await _tokens(scene, await scene.post(mode="FailOpen")) == NONE


async def test_picker_that_does_not_see_the_answer_has_its_tokens_logged(scene: Scene) -> None:
    over = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.write(response(WHOLE))

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))

    scene.play, scene.answer = play, answer
    asking = asyncio.create_task(scene.post())
    await until(lambda: bool(scene.a.requests))
    await scene.stage()
    over.set()
    got = await asking
    assert got.content == WHOLE
    assert await _tokens(scene, got) == [12, 8, 3]


async def test_tokens_are_those_that_the_model_server_tells(scene: Scene) -> None:
    """Whatever the picker makes of the answer."""

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.receive()
        changed = Changes(set=(SetHeader("x-infergate-usage", b"7/7/7"), SetHeader("x-infergate-pick", b"7.000")))
        await stage.send(HeadersAnswer(Phase.RESPONSE, changed))
        while isinstance(part := await stage.receive(), BodyPart):
            text = part.chunk.replace(b"12", b"99")
            await stage.send(BodyAnswer(Phase.RESPONSE, text, is_streamed=True, end_of_stream=part.end_of_stream))

    scene.play = play
    got = await scene.post()
    assert json.loads(got.content)["usage"]["prompt_tokens"] == 99
    assert await _tokens(scene, got) == [12, 8, 3]
    assert (await scene.gateway.logged(got.headers["x-request-id"]))["pick_seconds"] < 7


async def test_answer_that_breaks_off_tells_no_tokens(scene: Scene) -> None:
    _says(scene, WHOLE, b"\n", end=b"")
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.http.post("/v1/x", content=b"{}", headers={"host": "close.test", "x-request-id": "broken"})
    line = await scene.gateway.logged("broken")
    assert [line[name] for name in TOKENS] == NONE


async def test_client_sees_nothing_of_how_tokens_are_told(scene: Scene) -> None:
    sent = (
        b"POST / HTTP/1.1\r\nHost: close.test\r\nTE: trailers\r\nConnection: close, TE\r\nContent-Length: 2\r\n\r\n{}"
    )
    answer = await exchange(scene.gateway.port, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"%x\r\n%b\r\n0\r\n\r\n" % (len(WHOLE), WHOLE)
    assert b"x-infergate-usage" not in head.lower()
    assert b"trailer" not in head.lower()


async def test_answer_over_http2_is_whole(scene: Scene) -> None:
    async with client_of(scene.gateway, http2=True) as http:
        got = await http.post("/v1/x", content=b"{}", headers={"host": "close.test"})
    assert (got.http_version, got.content) == ("HTTP/2", WHOLE)
    assert await _tokens(scene, got) == [12, 8, 3]
