"""External pickers that fail or misbehave: the pool's failure mode decides, nothing hangs and nothing is left."""

import asyncio
import os
import signal
from contextlib import suppress

import grpc
import httpx
import pytest

from controller.extproc.messages import (
    Action,
    BodyAnswer,
    Changes,
    HeadersAnswer,
    Immediate,
    Phase,
    SetHeader,
)
from tests.nginx.ext_proc import Play, Stage, as_the_field_does, named, picks, serve_ext_proc
from tests.nginx.gateway import client_of, eventually
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.scene import LATE, Scene
from tests.nginx.servers import Request, response
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


async def _abort(stage: Stage) -> None:
    await stage.context.abort(grpc.StatusCode.INTERNAL, "out of order")


async def _never(stage: Stage) -> None:
    while await stage.receive() is not None:
        pass
    await asyncio.Event().wait()


async def _does_not_read(stage: Stage) -> None:
    await asyncio.Event().wait()


async def _ends_at_once(stage: Stage) -> None:
    return


async def _ends_after_the_request(stage: Stage) -> None:
    await stage.request()


async def _aborts_after_the_request(stage: Stage) -> None:
    await stage.request()
    await _abort(stage)


async def _garbage(stage: Stage) -> None:
    await stage.send_raw(b"\xff\xff\xff\xff")
    await stage.receive()


async def _nowhere(stage: Stage) -> None:
    await stage.request()
    await stage.send(picks("10.9.9.9:80", "nonsense", "[::1"), named("10.9.9.9:80"))


async def _no_endpoint(stage: Stage) -> None:
    await stage.request()
    await stage.send(HeadersAnswer(Phase.REQUEST))


async def _ten_thousand_headers(stage: Stage) -> None:
    await stage.request()
    many = tuple(SetHeader(f"x-{number}", b"value", Action.APPEND) for number in range(10_000))
    await stage.send(HeadersAnswer(Phase.REQUEST, Changes(set=many)))


async def _answers_the_response_first(stage: Stage) -> None:
    await stage.request()
    await stage.send(HeadersAnswer(Phase.RESPONSE))


async def _status_zero(stage: Stage) -> None:
    await stage.request()
    await stage.send(Immediate(0, b"nothing"))


async def _huge_message(stage: Stage) -> None:
    await stage.request()
    await stage.send(BodyAnswer(Phase.REQUEST, b"x" * 20_000_000))


def _half(scene: Scene, *, ends: bool) -> Play:
    """Half a body, and then nothing or the end."""

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST, b"half", is_streamed=True))
        if not ends:
            await stage.receive()

    return play


def _wrong_length(scene: Scene) -> Play:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address, content_length="10"))
        await asyncio.sleep(0)
        await stage.send(BodyAnswer(Phase.REQUEST, b"1", is_streamed=True))
        await stage.context.abort(grpc.StatusCode.UNKNOWN, "")

    return play


TABLE: dict[str, Play] = {
    "aborts at once": _abort,
    "ends at once": _ends_at_once,
    "never answers": _never,
    "does not read": _does_not_read,
    "ends after the request": _ends_after_the_request,
    "aborts after the request": _aborts_after_the_request,
    "garbage": _garbage,
    "an endpoint outside of the pool": _nowhere,
    "no endpoint": _no_endpoint,
    "10,000 headers": _ten_thousand_headers,
    "answers the response first": _answers_the_response_first,
    "status zero": _status_zero,
    "a message of 20 MB": _huge_message,
}


async def _failed(scene: Scene, play: Play, *, mode: str, body: bytes) -> None:
    scene.play = play
    got = await scene.post(body, mode=mode)
    if mode == "FailClose":
        assert (got.status_code, got.json()["error"]["code"]) == (503, "picker_unavailable")
        assert got.headers["retry-after"] == "1"
        return
    assert (got.status_code, got.json()["size"]) == (200, len(body))


@pytest.mark.parametrize("size", [2, 1_000_000])
@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
@pytest.mark.parametrize("name", TABLE)
async def test_failure_mode_decides(scene: Scene, name: str, mode: str, size: int) -> None:
    began = asyncio.get_running_loop().time()
    await _failed(scene, TABLE[name], mode=mode, body=b"x" * size)
    assert asyncio.get_running_loop().time() - began < LATE + 5
    assert len(scene.a.requests + scene.b.requests) == (mode == "FailOpen")


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
@pytest.mark.parametrize("ends", [True, False])
async def test_half_a_request_is_no_request(scene: Scene, mode: str, ends: bool) -> None:
    await _failed(scene, _half(scene, ends=ends), mode=mode, body=b"x" * 200_000)


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
async def test_body_of_another_length_is_no_request(scene: Scene, mode: str) -> None:
    await _failed(scene, _wrong_length(scene), mode=mode, body=b"x" * 2000)


# In the response phase the endpoint has done its work.


def _in_the_response(scene: Scene, then: Play) -> Play:
    async def play(stage: Stage) -> None:
        _, body = await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.echo(Phase.REQUEST, body)
        await stage.receive()
        await then(stage)

    return play


async def _aborts_after_the_headers(stage: Stage) -> None:
    await stage.send(HeadersAnswer(Phase.RESPONSE))
    await _abort(stage)


async def _aborts_within_what_it_gives_back(stage: Stage) -> None:
    await stage.send(HeadersAnswer(Phase.RESPONSE))
    part = await stage.receive()
    await stage.send(BodyAnswer(Phase.RESPONSE, part.chunk[:10], is_streamed=True))  # type: ignore[union-attr]  # a body
    await _abort(stage)


RESPONSES: dict[str, Play] = {
    "aborts": _abort,
    "ends": _ends_at_once,
    "never answers": _never,
    "garbage": _garbage,
    "aborts after the headers": _aborts_after_the_headers,
    "aborts within what it gives back": _aborts_within_what_it_gives_back,
}


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
@pytest.mark.parametrize("name", RESPONSES)
async def test_answer_goes_on_without_its_picker(scene: Scene, name: str, mode: str) -> None:
    body = b"0123456789" * 30_000

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body))

    scene.play, scene.answer = _in_the_response(scene, RESPONSES[name]), answer
    got = await scene.post(mode=mode)
    assert (got.status_code, got.content) == (200, body)
    assert len(scene.a.requests) == 1


@pytest.mark.parametrize("ends", [True, False])
async def test_answer_that_was_changed_is_cut_when_its_picker_fails(scene: Scene, ends: bool) -> None:
    async def then(stage: Stage) -> None:
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        await stage.receive()
        await stage.send(BodyAnswer(Phase.RESPONSE, b"something else", is_streamed=True))
        if not ends:
            await _abort(stage)

    scene.play = _in_the_response(scene, then)
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.post()


# Pickers that are not there.


async def _apply(scene: Scene, *pickers: str, mode: str) -> None:
    """Another pool, at the host `other.test`."""
    made = picked_pool("other", scene.a.address, scene.b.address, pickers=pickers, mode=mode)
    await scene.gateway.apply("other.yaml", made, route("other", rule(to_pool("other")), hostnames=["other.test"]))


async def _ask(scene: Scene, body: bytes = b"{}") -> httpx.Response:
    # On a connection of its own, since a kept one may be that of a worker that serves what was before.
    async with client_of(scene.gateway) as http:
        return await http.post("/v1/x", content=body, headers={"host": "other.test"})


@pytest.mark.parametrize(("mode", "status"), [("FailClose", 503), ("FailOpen", 200)])
@pytest.mark.parametrize("there", ["nobody listens", "no endpoint"])
async def test_picker_that_is_not_there(scene: Scene, there: str, mode: str, status: int) -> None:
    places = () if there == "no endpoint" else (f"127.0.0.1:{free_ports(1)[0]}",)
    await _apply(scene, *places, mode=mode)
    assert (await _ask(scene, b"x" * 100_000)).status_code == status


@pytest.mark.parametrize(("mode", "status"), [("FailClose", 503), ("FailOpen", 200)])
@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64], ids=["silent", "http1", "zeros"]
)
async def test_something_else_listens_where_the_picker_should(
    scene: Scene, says: bytes, mode: str, status: int
) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(says)
            while await reader.read(1000):
                pass
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        made = picked_pool("other", scene.a.address, pickers=[address], mode=mode, tls=False)
        await scene.gateway.apply("other.yaml", made, route("other", rule(to_pool("other")), hostnames=["other.test"]))
        assert (await _ask(scene)).status_code == status
    await scene.gateway.apply("other.yaml")


async def test_second_picker_is_asked_when_the_first_is_gone(scene: Scene) -> None:
    await _apply(scene, f"127.0.0.1:{free_ports(1)[0]}", scene.picker.address, mode="FailClose")
    assert [(await _ask(scene)).status_code for _ in range(3)] == [200, 200, 200]


async def test_picker_that_says_it_does_not_serve_is_asked_last(scene: Scene) -> None:
    play = as_the_field_does(scene.a.address)
    async with serve_ext_proc(play, health=2) as out, serve_ext_proc(play, health=1) as well:

        async def is_known() -> bool:
            await _ask(scene)
            pickers = (await scene.gateway.relay())["pickers"]
            return any(picker["address"] == out.address and not picker["serving"] for picker in pickers)

        await _apply(scene, out.address, well.address, mode="FailClose")
        # The order of the endpoints is that of their addresses; the other one is asked once the first is known.
        first = min(out.address, well.address)
        if first == out.address:
            await eventually(is_known)
        asked = len(out.stages)
        assert [(await _ask(scene)).status_code for _ in range(5)] == [200] * 5
        assert len(out.stages) == asked
    await scene.gateway.apply("other.yaml")


async def test_picker_that_does_not_serve_is_asked_where_no_other_is(scene: Scene) -> None:
    async with serve_ext_proc(as_the_field_does(scene.a.address), health=2) as picker:

        async def is_known() -> bool:
            await _ask(scene)
            pickers = (await scene.gateway.relay())["pickers"]
            return any(each["address"] == picker.address and not each["serving"] for each in pickers)

        await _apply(scene, picker.address, mode="FailClose")
        await eventually(is_known)
        assert (await _ask(scene)).status_code == 200
    await scene.gateway.apply("other.yaml")


async def test_picker_that_goes_cuts_no_stream_and_comes_back(scene: Scene) -> None:
    going = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await going.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    pieces: list[bytes] = []
    port = free_ports(1)[0]

    async def read() -> None:
        async with scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "other.test"}) as got:
            async for piece in got.aiter_raw():
                pieces.append(piece)  # noqa: PERF401 - to be seen as they come

    async def is_well() -> bool:
        return (await _ask(scene)).status_code == 200

    await _apply(scene, f"127.0.0.1:{port}", mode="FailClose")
    scene.answer = answer
    async with serve_ext_proc(as_the_field_does(scene.a.address), address=f"127.0.0.1:{port}") as picker:
        await eventually(lambda: _truth(picker.open == 0))
        reading = asyncio.create_task(read())
        await eventually(lambda: _truth(bool(pieces)))
    assert (await _ask(scene)).status_code == 503
    going.set()
    async with asyncio.timeout(10):
        await reading
    assert b"".join(pieces) == b"onetwo"
    async with serve_ext_proc(as_the_field_does(scene.a.address), address=f"127.0.0.1:{port}"):
        await eventually(is_well)
    await scene.gateway.apply("other.yaml")


async def _truth(value: bool) -> bool:
    return value


# A relay that is not there.


@pytest.mark.parametrize(("mode", "status"), [("FailClose", 503), ("FailOpen", 200)])
async def test_relay_that_was_killed_is_a_picker_that_cannot_be_reached(scene: Scene, mode: str, status: int) -> None:
    pid = scene.gateway.data_plane.relay_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    seen = {(await scene.post(b"x" * 300_000, mode=mode)).status_code for _ in range(5)}

    async def is_back() -> bool:
        return scene.gateway.data_plane.relay_pid not in (None, pid) and bool(await scene.gateway.relay())

    await eventually(is_back)
    assert seen <= {status, 200}
    assert (await scene.post(mode=mode)).status_code == 200
