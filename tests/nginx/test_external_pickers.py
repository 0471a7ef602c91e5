"""Pools with an external picker: what it is told, and what becomes of what it says. Through nginx and the relay."""

import asyncio
import json
from collections.abc import Sequence

import httpx
import pytest
import pytest_asyncio

from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    OWN_NAMESPACE,
    SERVED_KEY,
    Action,
    Answer,
    BodyAnswer,
    BodyPart,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Immediate,
    Phase,
    SetHeader,
)
from controller.headers import PRIORITY_HEADERS
from tests.nginx.ext_proc import Stage, as_the_field_does, named, picks
from tests.nginx.resources import Json, route, rule, to_pool
from tests.nginx.scene import MODES, Scene
from tests.nginx.servers import Request, close, describe, reset, response

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def relay_options() -> Sequence[str]:
    return ("--answer-timeout", "30")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(shared_scene: Scene) -> Scene:
    await shared_scene.gateway.apply("prioritized.yaml", _prioritized())
    return shared_scene


def _prioritized() -> Json:
    """A route whose rules give their requests priorities."""
    rules = [{**rule(to_pool("failclose"), path=f"/{name}"), "name": name} for name in ("low", "bounded", "plain")]
    made = route("prioritized", *rules, hostnames=["priority.test"])
    made["metadata"]["annotations"] = {
        "infergate.dev/priority": "low=-1",
        "infergate.dev/priority-cap": "bounded=5",
        "infergate.dev/priority-default": "bounded=-2147483648",
    }
    return made


def _fields(part: object) -> dict[str, str]:
    assert isinstance(part, HeadersPart)
    return {name: value.decode() for name, value in part.headers}


# What the picker is told.


async def test_picker_gets_the_request_with_its_pseudo_headers(scene: Scene) -> None:
    await scene.post(b'{"model": "m"}', x_tenant="t")
    stage = await scene.stage()
    fields = _fields(stage.parts[0][0])

    assert {name: fields[name] for name in (":method", ":path", ":authority", ":scheme", "x-tenant")} == {
        ":method": "POST",
        ":path": "/v1/chat/completions",
        ":authority": "close.test",
        ":scheme": "http",
        "x-tenant": "t",
    }
    assert stage.parts[1][0] == BodyPart(Phase.REQUEST, b'{"model": "m"}', end_of_stream=True)


async def test_request_without_body_ends_with_its_headers(scene: Scene) -> None:
    answer = await scene.http.get("/v1/models?x=1", headers={"host": "close.test"})
    part = (await scene.stage()).parts[0][0]

    assert answer.status_code == 200
    assert isinstance(part, HeadersPart)
    assert part.end_of_stream
    assert _fields(part)[":path"] == "/v1/models?x=1"


async def test_picker_gets_the_answer_with_the_endpoint_that_served(scene: Scene) -> None:
    answer = await scene.post()
    stage = await scene.stage()
    head, metadata = stage.parts[2]
    pieces = [part for part, _ in stage.parts[3:] if isinstance(part, BodyPart)]

    assert metadata == {ENDPOINT_NAMESPACE: {SERVED_KEY: scene.a.address}}
    assert _fields(head)[":status"] == "200"
    assert b"".join(piece.chunk for piece in pieces) == answer.content
    assert pieces[-1].end_of_stream
    assert stage.outcome == "closed"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/low", {"x-infergate-priority": "-1"}),
        ("/bounded", {"x-infergate-priority-cap": "5", "x-infergate-priority-default": "-2147483648"}),
        ("/plain", None),
    ],
)
async def test_picker_is_told_the_priority_that_the_route_gives_and_nothing_of_the_client(
    scene: Scene, path: str, told: dict[str, str] | None
) -> None:
    said = {"host": "priority.test", **dict.fromkeys(PRIORITY_HEADERS, "100")}
    assert (await scene.http.post(path, content=b"{}", headers=said)).status_code == 200
    stage = await scene.stage()
    (head, metadata), *_ = stage.parts
    assert metadata.get(OWN_NAMESPACE) == told
    assert not _fields(head).keys() & set(PRIORITY_HEADERS)
    assert [scene.a.requests[-1].values(name) for name in PRIORITY_HEADERS] == [[], [], []]


async def test_client_cannot_choose(scene: Scene) -> None:
    answer = await scene.post(
        x_gateway_destination_endpoint=scene.b.address,
        X_Gateway_Destination_Endpoint_Subset=scene.b.address,
        x_infergate_pool="default/failopen",
        x_infergate_then="@infergate_fail_open",
    )
    stage = await scene.stage()

    assert answer.json()["server"] == "a"
    assert not [name for name in _fields(stage.parts[0][0]) if "infergate" in name or "destination" in name]
    assert "envoy.lb.subset_hint" not in stage.parts[0][1]


async def test_a_thousand_requests_take_one_connection(scene: Scene) -> None:
    async def wave() -> None:
        answers = await asyncio.gather(*(scene.post(b"x" * 2000) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}

    for _ in range(20):
        await wave()
    assert len(scene.picker.stages) == 1000
    assert len(scene.picker.peers) == 1


# What the picker says.


async def test_headers_are_set_appended_and_removed(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        changes = Changes(
            set=(
                SetHeader(ENDPOINT_KEY, scene.a.address.encode()),
                SetHeader("x-set", b"picker"),
                SetHeader("x-add", b"2", Action.APPEND),
                SetHeader("x-absent", b"no", Action.ADD_IF_ABSENT),
                SetHeader("x-nowhere", b"no", Action.OVERWRITE_IF_EXISTS),
                SetHeader("x-bad", b"a\r\nx-smuggled: 1"),
            ),
            remove=("x-gone", "host", "content-length"),
        )
        await stage.send(HeadersAnswer(Phase.REQUEST, changes))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.receive()
        changed = Changes(set=(SetHeader("x-picker", b"yes"), SetHeader("x-both", b"2")), remove=("x-secret",))
        await stage.send(HeadersAnswer(Phase.RESPONSE, changed))
        while (part := await stage.receive()) is not None:
            assert isinstance(part, BodyPart)
            await stage.send(BodyAnswer(Phase.RESPONSE))

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok", "x-secret: s", "x-both: 1"))

    scene.play, scene.answer = play, answer
    got = await scene.post(x_set="client", x_add="1", x_gone="1", x_absent="client")
    (request,) = scene.a.requests

    assert request.values("x-set") == ["picker"]
    assert request.values("x-add") == ["1", "2"]
    assert request.values("x-absent") == ["client"]
    assert request.values("host") == ["close.test"]
    assert not [name for name in ("x-gone", "x-nowhere", "x-smuggled") if request.values(name)]
    assert (got.text, got.headers["x-picker"], got.headers["x-both"]) == ("ok", "yes", "2")
    assert "x-secret" not in got.headers


async def test_request_body_is_replaced_by_a_stream(scene: Scene) -> None:
    body = b"y" * 150_000

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.echo(Phase.REQUEST, body)
        await stage.response()

    scene.play = play
    await scene.post(b"x" * 100_000)
    assert scene.a.requests[0].body == body
    assert scene.a.requests[0].values("content-length") == ["150000"]


@pytest.mark.parametrize("replaces", [True, False])
async def test_request_body_is_replaced_by_the_answer_to_the_headers(scene: Scene, replaces: bool) -> None:
    async def play(stage: Stage) -> None:
        await stage.receive()
        answer = picks(scene.a.address)
        await stage.send(HeadersAnswer(Phase.REQUEST, answer.changes, body=b"short", replaces=replaces))
        while (part := await stage.receive()) is not None:
            if part.phase is Phase.RESPONSE:
                answered = HeadersAnswer if isinstance(part, HeadersPart) else BodyAnswer
                await stage.send(answered(Phase.RESPONSE))

    scene.play = play
    assert (await scene.post(b"x" * 100_000)).status_code == 200
    assert scene.a.requests[0].body == b"short"


async def test_pieces_of_a_body_are_replaced_kept_and_removed(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        # The headers come last, as the pickers do that the conformance tests use.
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.send(BodyAnswer(Phase.REQUEST, b""))
        await stage.send(BodyAnswer(Phase.REQUEST, b"last"))
        await stage.send(picks(scene.a.address))
        await stage.response()

    scene.play = play
    await scene.post(b"a" * 62_000 + b"b" * 62_000 + b"c")
    assert scene.a.requests[0].body == b"a" * 62_000 + b"last"


async def test_answer_is_replaced(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        _, body = await stage.response()
        # The body comes before the headers.
        await stage.echo(Phase.RESPONSE, body.replace(b"model-7", b"alias"))
        await stage.send(HeadersAnswer(Phase.RESPONSE, Changes(set=(SetHeader("content-type", b"text/x"),))))

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b'{"model": "model-7"}', "Content-Type: application/json"))

    scene.play, scene.answer = play, answer
    got = await scene.post()
    assert (got.text, got.headers["content-type"]) == ('{"model": "alias"}', "text/x")


@pytest.mark.parametrize(
    ("own", "set_to", "status", "content"),
    [
        (200, b"503", 503, b"body"),
        (500, b"200", 200, b"body"),
        (200, b"204", 204, b""),
        (304, b"200", 200, b""),
        (200, b"101", 200, b"body"),
        (200, b"none", 200, b"body"),
    ],
)
async def test_status_of_an_answer_is_the_pickers(
    scene: Scene, own: int, set_to: bytes, status: int, content: bytes
) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        head, body = await stage.response()
        await stage.send(HeadersAnswer(Phase.RESPONSE, Changes(set=(SetHeader(":status", set_to),))))
        if not head.end_of_stream:
            await stage.echo(Phase.RESPONSE, body)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        body = b"" if own == 304 else b"body"
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 4\r\n\r\n%s" % (own, body))

    scene.play, scene.answer = play, answer
    for _ in range(2):  # the connection is good for another one
        got = await scene.post()
        assert (got.status_code, got.content) == (status, content)


async def test_events_leave_as_they_come(scene: Scene) -> None:
    asked = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await asked.wait()
            asked.clear()
        writer.write(b"0\r\n\r\n")

    scene.answer = answer
    events = []
    async with (
        asyncio.timeout(10),
        scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "close.test"}) as got,
    ):
        async for event in got.aiter_raw():
            events.append(event)
            asked.set()
    assert events == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_path_is_the_pickers_and_the_method_is_not(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        changes = (SetHeader(":path", b"/v2/other?a=b"), SetHeader(":method", b"PUT"), SetHeader(":path", b"no path"))
        await stage.send(HeadersAnswer(Phase.REQUEST, Changes(set=(*picks(scene.a.address).changes.set, *changes))))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.response()

    scene.play = play
    await scene.post()
    assert (scene.a.requests[0].target, scene.a.requests[0].method) == ("/v2/other?a=b", "POST")


@pytest.mark.parametrize("said", ["x-hop", "keep-alive, X-Hop , X-Forwarded-For, Content-Type, x-request-id"])
async def test_headers_of_the_clients_connection_stay_there(scene: Scene, said: str) -> None:
    got = await scene.post(connection=said, x_hop="1", x_end="1", content_type="text/plain")
    stage = await scene.stage()
    assert got.status_code == 200
    (head,) = (part for part, _ in stage.parts if isinstance(part, HeadersPart) and part.phase is Phase.REQUEST)
    expected = {"x-end", "x-forwarded-for", "x-request-id", "content-type"}
    wanted = {"x-hop", *expected}
    assert {name for name, _ in head.headers} & wanted == expected
    assert {name for name, _ in scene.a.requests[0].headers} & wanted == expected
    assert not [name for name, _ in head.headers if name.startswith(("x-infergate", "connection"))]


@pytest.mark.parametrize("mark", ["-", "_"])
async def test_endpoint_does_not_speak_for_the_relay(scene: Scene, mark: str) -> None:
    said = ("x-infergate-model", "x-infergate-target", "x-infergate-explain", "x-infergate-pick", ENDPOINT_KEY)
    names = [name.replace("-", mark) for name in said]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"{}", *(f"{name}: 7.000" for name in names)))

    scene.answer = answer
    got = await scene.post()
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert not {*said, *names} & set(got.headers)
    assert (line["endpoint"], line["model"], line["target_model"]) == (scene.a.address, "", "")
    assert line["pick_seconds"] < 7


async def test_endpoint_does_not_write_the_log_where_its_pool_fails_open(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        pass

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        said = ("x-infergate-model: forged", "x-infergate-target: forged", "x-infergate-tried: 10.0.0.1:80=failed;")
        writer.write(response(b"{}", *said))

    scene.play, scene.answer = play, answer
    got = await scene.post(mode="FailOpen")
    line = await scene.gateway.logged(got.headers["x-request-id"])
    assert (got.status_code, line["mode"]) == (200, "fail_open")
    assert (line["model"], line["target_model"], line["tried"]) == ("", "", "")


async def test_headers_of_the_endpoints_connection_stay_there(scene: Scene) -> None:
    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok", "Connection: x-hop", "X-Hop: 1", "X-End: 1"))

    scene.answer = answer
    got = await scene.post()
    stage = await scene.stage()
    (head,) = (part for part, _ in stage.parts if isinstance(part, HeadersPart) and part.phase is Phase.RESPONSE)
    assert (got.headers.get("x-hop"), got.headers.get("x-end")) == (None, "1")
    assert {name for name, _ in head.headers} & {"x-hop", "x-end"} == {"x-end"}


# Where it sends a request.


def _lists(scene: Scene) -> list[tuple[Answer, dict[str, dict[str, str]]]]:
    header = (SetHeader(ENDPOINT_KEY, b"10.9.9.9:1"), SetHeader(ENDPOINT_KEY, scene.b.address.encode(), Action.APPEND))
    return [
        (picks("10.9.9.9:1", scene.b.address), {}),
        (HeadersAnswer(Phase.REQUEST, Changes(set=header)), {}),
        (HeadersAnswer(Phase.REQUEST), {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: f"no-address, {scene.b.address}"}}),
    ]


@pytest.mark.parametrize("number", range(3), ids=["commas", "repeated", "metadata"])
async def test_first_endpoint_of_the_pool_is_asked(scene: Scene, number: int) -> None:
    answer, metadata = _lists(scene)[number]

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(answer, metadata)
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.response()

    scene.play = play
    assert (await scene.post()).json()["server"] == "b"


@pytest.mark.parametrize("failing", [reset, close], ids=["reset", "close"])
async def test_next_endpoint_of_the_list_is_asked_when_one_fails(scene: Scene, failing: object) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (failing if request.server == "a" else describe)(request, writer)  # type: ignore[operator]  # a function

    scene.play, scene.answer = as_the_field_does(scene.a.address, scene.b.address), answer
    got = await scene.post(b"z" * 800_000)
    stage = await scene.stage()
    served = [metadata for _, metadata in stage.parts if metadata]

    assert (got.json()["server"], got.json()["size"]) == ("b", 800_000)
    assert served == [{ENDPOINT_NAMESPACE: {SERVED_KEY: scene.b.address}}]


async def test_endpoint_that_cannot_be_reached_is_502(scene: Scene) -> None:
    scene.answer = reset
    got = await scene.post(mode="FailOpen")
    assert (got.status_code, got.json()["error"]["code"]) == (502, "endpoints_failed")
    assert scene.a.requests
    assert not scene.b.requests


async def test_picker_that_serves_no_trailers_and_closes_after_the_pick(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address), named(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))

    scene.play = play
    got = await scene.post(b"abc")
    assert (got.json()["size"], "content-length" in got.headers) == (3, True)


# Its refusals.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [400, 404, 429, 503])
async def test_refusal_is_the_clients_answer(scene: Scene, mode: str, status: int) -> None:
    body = json.dumps({"error": {"message": "full"}}).encode()

    async def play(stage: Stage) -> None:
        await stage.request()
        changes = Changes(set=(SetHeader("retry-after", b"7"), SetHeader("content-type", b"application/json")))
        await stage.send(Immediate(status, body, changes, details="shed"))

    scene.play = play
    got = await scene.post(mode=mode)
    assert (got.status_code, got.content, got.headers["retry-after"]) == (status, body, "7")
    assert got.headers["content-type"] == "application/json"
    assert not scene.a.requests + scene.b.requests


async def test_refusal_of_a_large_request_comes_before_its_end(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.receive()
        await stage.send(Immediate(413, b"too much"))

    scene.play = play
    got = await scene.post(b"x" * 5_000_000)
    assert (got.status_code, got.text) == (413, "too much")


async def test_refusal_takes_the_place_of_an_answer(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.receive()
        await stage.send(Immediate(403, b"not this"))

    scene.play = play
    got = await scene.post(mode="FailOpen")
    assert (got.status_code, got.text) == (403, "not this")


async def test_picker_ends_a_stream(scene: Scene) -> None:
    begun = asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.receive()
        await stage.send(HeadersAnswer(Phase.RESPONSE))
        await stage.receive()
        await stage.send(BodyAnswer(Phase.RESPONSE))
        await begun.wait()
        await stage.send(Immediate(429, b"evicted"))

    hung_up = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await request.hung_up()
        hung_up.set()

    scene.play, scene.answer = play, answer
    pieces = []

    async def read() -> None:
        async with scene.http.stream("POST", "/v1/x", content=b"{}", headers={"host": "close.test"}) as got:
            async for piece in got.aiter_raw():
                pieces.append(piece)
                begun.set()

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    async with asyncio.timeout(5):
        await hung_up.wait()
    assert pieces == [b"first"]


# Clients that hang up.


@pytest.mark.parametrize("moment", ["waiting for the pick", "waiting for the answer", "in the answer"])
async def test_hang_up_cancels_the_stream(scene: Scene, moment: str) -> None:
    reached, hung_up = asyncio.Event(), asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.request()
        if moment == "waiting for the pick":
            reached.set()
            await stage.receive()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        while (part := await stage.receive()) is not None:
            await stage.send(
                HeadersAnswer(Phase.RESPONSE) if isinstance(part, HeadersPart) else BodyAnswer(Phase.RESPONSE)
            )

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if moment == "in the answer":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        reached.set()
        await request.hung_up()
        hung_up.set()

    scene.play, scene.answer = play, answer
    asking = asyncio.create_task(scene.post())
    async with asyncio.timeout(5):
        await reached.wait()
        asking.cancel()
        await scene.rests()
        if moment != "waiting for the pick":
            await hung_up.wait()
    assert scene.picker.stages[0].outcome in ("cancelled", "closed")
