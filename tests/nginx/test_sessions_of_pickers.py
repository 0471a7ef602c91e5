"""Sessions of rules whose pool has an external picker: what that is told, and what becomes of what it says.

What clients see of sessions is in `test_sessions`, which runs with our own picker as an external one as well.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import httpx
import pytest
import pytest_asyncio

from controller.extproc.messages import (
    OWN_NAMESPACE,
    SESSION_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
    BodyAnswer,
    HeadersAnswer,
    Immediate,
    Phase,
)
from controller.headers import session_id
from controller.relay.pieces import MOST_OF_ONE
from tests.nginx.ext_proc import Play, Stage, as_the_field_does, picks
from tests.nginx.resources import route, rule, to_pool
from tests.nginx.scene import MODES, Scene
from tests.nginx.servers import Backend, Request, close, connect, describe, reset

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

SIZES = [2, MOST_OF_ONE - 1000, 3_000_000]
"""Bytes of a body in one piece, of one in memory, and of one in files."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(shared_scene: Scene) -> Scene:
    kept = {"sessionName": "X-Session", "type": "Header"}
    rules = {host: rule(to_pool(mode.lower()), sessionPersistence=kept) for mode, host in MODES.items()}
    routes = [route(f"kept-{host}", one, hostnames=[f"kept.{host}"]) for host, one in rules.items()]
    await shared_scene.gateway.apply("kept.yaml", *routes)
    return shared_scene


async def _post(
    scene: Scene, token: str = "", *, mode: str = "FailClose", body: bytes | AsyncIterator[bytes] = b"{}"
) -> httpx.Response:
    headers = {"host": f"kept.{MODES[mode]}", "x-session": token}
    return await scene.http.post("/v1/chat/completions", content=body, headers=headers)


async def _begin(scene: Scene, endpoint: Backend, *, mode: str = "FailClose") -> str:
    """A session on an endpoint."""
    before, scene.play = scene.play, as_the_field_does(endpoint.address)
    answer = await _post(scene, mode=mode)
    assert len(endpoint.requests) == 1
    await scene.rests()
    scene.play = before
    scene.picker.stages.clear()
    for backend in (scene.a, scene.b):
        backend.requests.clear()
    return str(answer.headers["x-session"])


def _hints(scene: Scene) -> list[Sequence[str] | None]:
    """What the picker was allowed, each time it was asked; None: everything."""
    metadata = [stage.parts[0][1] for stage in scene.picker.stages]
    return [told.get(SUBSET_NAMESPACE, {}).get(SUBSET_KEY) for told in metadata]


def _of(scene: Scene, endpoint: Backend, *, mode: str = "FailClose") -> str:
    """What a token says of an endpoint."""
    return session_id(f"default/{mode.lower()}", endpoint.address)


def _as_hinted(otherwise: Backend) -> Play:
    """A picker that chooses the first that it may."""

    async def play(stage: Stage) -> None:
        hint = (await stage.told()).get(SUBSET_NAMESPACE, {SUBSET_KEY: [otherwise.address]})
        await as_the_field_does(hint[SUBSET_KEY][0])(stage)

    return play


def _refusing(status: int, otherwise: Backend, *, at_once: bool = False, says_why: bool = False) -> Play:
    """A picker that refuses whoever may not have everything."""

    async def play(stage: Stage) -> None:
        told = await stage.told()
        if SUBSET_NAMESPACE not in told:
            await as_the_field_does(otherwise.address)(stage)
            return
        if not at_once:
            await stage.request()
        why = {OWN_NAMESPACE: {SESSION_KEY: told[OWN_NAMESPACE][SESSION_KEY]}} if says_why else None
        await stage.send(Immediate(status, b"not there"), why)

    return play


async def test_picker_is_asked_for_the_endpoint_of_the_session(scene: Scene) -> None:
    token = await _begin(scene, scene.b)
    scene.play = _as_hinted(scene.a)
    kept, other = await _post(scene, token), await _post(scene)

    assert (kept.json()["server"], kept.headers["x-session"]) == ("b", token)
    assert (other.json()["server"], other.headers["x-session"] != token) == ("a", True)
    told = [stage.parts[0][1] for stage in scene.picker.stages]
    assert told == [
        {SUBSET_NAMESPACE: {SUBSET_KEY: [scene.b.address]}, OWN_NAMESPACE: {SESSION_KEY: scene.b.address}},
        {},
    ]


async def test_session_moves_where_its_picker_wants_it(scene: Scene) -> None:
    token = await _begin(scene, scene.b)
    moved = await _post(scene, token)
    await scene.rests()
    again = await _post(scene, moved.headers["x-session"])

    assert (moved.json()["server"], moved.headers["x-session"].split("-")[1]) == ("a", _of(scene, scene.a))
    assert again.headers["x-session"] == moved.headers["x-session"]
    assert _hints(scene) == [[scene.b.address], [scene.a.address]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at_once", [True, False], ids=["with the headers", "with the body"])
@pytest.mark.parametrize("status", [429, 503])
async def test_session_moves_when_its_endpoint_is_refused(scene: Scene, status: int, at_once: bool, size: int) -> None:
    token = await _begin(scene, scene.b)
    scene.play = _refusing(status, scene.a, at_once=at_once)
    body = bytes(range(256)) * (size // 256 + 1)
    answer = await _post(scene, token, body=body)

    assert (answer.status_code, answer.headers["x-session"].split("-")[1]) == (200, _of(scene, scene.a))
    assert [request.body == body for request in scene.a.requests] == [True]
    assert _hints(scene) == [[scene.b.address], None]


async def test_time_until_the_picker_chose_has_the_refusal_in_it(scene: Scene) -> None:
    token = await _begin(scene, scene.b)
    refuse = _refusing(503, scene.a, at_once=True)

    async def play(stage: Stage) -> None:
        if SUBSET_NAMESPACE in await stage.told():
            await asyncio.sleep(0.2)
        await refuse(stage)

    scene.play = play
    answer = await _post(scene, token)

    line = await scene.gateway.logged(answer.headers["x-request-id"])
    assert answer.status_code == 200
    assert 0.2 <= line["pick_seconds"] <= line["total_seconds"]


async def _ends(stage: Stage) -> None:
    return


async def _aborts(stage: Stage) -> None:
    await stage.context.abort(grpc.StatusCode.INTERNAL, "no such endpoint")


async def _names_none(stage: Stage) -> None:
    await stage.send(HeadersAnswer(Phase.REQUEST))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("refuse", [_ends, _aborts, _names_none])
async def test_session_moves_when_its_endpoint_is_refused_by_the_end_of_the_stream(
    scene: Scene, refuse: Play, mode: str
) -> None:
    async def play(stage: Stage) -> None:
        if SUBSET_NAMESPACE not in await stage.told():
            await as_the_field_does(scene.a.address)(stage)
            return
        await stage.request()
        await refuse(stage)

    token = await _begin(scene, scene.b, mode=mode)
    scene.play = play
    answer = await _post(scene, token, mode=mode, body=b"x" * 100_000)
    assert answer.headers["x-session"].split("-")[1] == _of(scene, scene.a, mode=mode)
    assert (answer.json()["server"], answer.json()["size"]) == ("a", 100_000)


async def test_body_that_still_comes_is_told_the_second_time(scene: Scene) -> None:
    token = await _begin(scene, scene.b)
    scene.play = _refusing(503, scene.a, at_once=True)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(40):
            yield b"%06d" % number * 20_000
            await asyncio.sleep(0)

    answer = await _post(scene, token, body=pieces())
    assert answer.status_code == 200
    assert scene.a.requests[0].body == b"".join([b"%06d" % number * 20_000 for number in range(40)])


async def test_refusal_of_every_endpoint_is_the_clients_answer(scene: Scene) -> None:
    token = await _begin(scene, scene.b)

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(Immediate(503, b"all gone"))

    scene.play = play
    answer = await _post(scene, token)
    assert (answer.status_code, answer.text) == (503, "all gone")
    assert "x-session" not in answer.headers
    assert _hints(scene) == [[scene.b.address], None]


@pytest.mark.parametrize(("status", "says_why"), [(400, False), (403, False), (500, False), (429, True), (503, True)])
async def test_refusal_for_another_reason_is_the_clients_answer(scene: Scene, status: int, says_why: bool) -> None:
    token = await _begin(scene, scene.b)
    scene.play = _refusing(status, scene.a, says_why=says_why)
    answer = await _post(scene, token)
    assert (answer.status_code, answer.text) == (status, "not there")
    assert _hints(scene) == [[scene.b.address]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("failing", [reset, close], ids=["reset", "close"])
async def test_session_moves_when_its_endpoint_fails(scene: Scene, failing: object, size: int) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (failing if request.server == "b" else describe)(request, writer)  # type: ignore[operator]  # a function

    token = await _begin(scene, scene.b)
    scene.play, scene.answer = _as_hinted(scene.b), answer
    body = bytes(range(256)) * (size // 256 + 1)
    got = await _post(scene, token, body=body)

    assert (got.json()["server"], got.headers["x-session"].split("-")[1]) == ("a", _of(scene, scene.a))
    assert scene.a.requests[0].body == body
    assert _hints(scene) == [[scene.b.address], [scene.a.address]]


async def test_body_that_the_picker_changed_is_told_as_the_client_sent_it(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        _, body = await stage.request()
        told = stage.parts[0][1][SUBSET_NAMESPACE][SUBSET_KEY]
        await stage.send(picks(told[0]))
        await stage.send(BodyAnswer(Phase.REQUEST, body + told[0].encode()))
        await stage.response()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (reset if request.server == "b" else describe)(request, writer)

    token = await _begin(scene, scene.b)
    scene.play, scene.answer = play, answer
    assert (await _post(scene, token, body=b"{}")).status_code == 200
    assert scene.a.requests[0].body == b"{}" + scene.a.address.encode()


async def test_endpoints_that_all_fail_are_502(scene: Scene) -> None:
    token = await _begin(scene, scene.b)
    scene.play, scene.answer = _as_hinted(scene.b), reset
    answer = await _post(scene, token, mode="FailClose")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "endpoints_failed")
    assert "x-session" not in answer.headers
    assert _hints(scene) == [[scene.b.address], [scene.a.address]]


async def test_endpoint_that_is_not_in_the_pool_is_not_asked_for(scene: Scene) -> None:
    backend, _, began = (await _begin(scene, scene.b)).split("-")
    for gone in (session_id("default/failclose", "127.0.0.1:1"), session_id("default/other", scene.b.address)):
        answer = await _post(scene, f"{backend}-{gone}-{began}")
        assert (answer.json()["server"], answer.headers["x-session"].split("-")[1]) == ("a", _of(scene, scene.a))
    assert _hints(scene) == [None, None]


async def test_sessions_are_neither_held_nor_moved_while_a_pool_fails_open(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.context.abort(grpc.StatusCode.INTERNAL, "out of order")

    token = await _begin(scene, scene.b, mode="FailOpen")
    scene.play = play
    answers = [await _post(scene, token, mode="FailOpen") for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer for answer in answers if "x-session" in answer.headers]
    scene.play = _as_hinted(scene.a)
    assert (await _post(scene, token, mode="FailOpen")).headers["x-session"] == token


async def test_websocket_has_a_session(scene: Scene) -> None:
    async def agree(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.server == "b":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        writer.close()

    token = await _begin(scene, scene.b)
    scene.play, scene.answer = _as_hinted(scene.a), agree
    asked = (
        f"GET /v1/realtime HTTP/1.1\r\nHost: kept.close.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"X-Session: {token}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with asyncio.timeout(15), connect(scene.gateway.port) as (reader, writer):
        writer.write(asked.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 101 ")
    assert f"\r\nx-session: {token}\r\n" in head
    assert _hints(scene) == [[scene.b.address]]
