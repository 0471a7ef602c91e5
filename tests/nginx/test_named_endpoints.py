"""Lists of endpoints that an external picker names: where requests go. Each is a sentence of the protocol."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    Action,
    Answer,
    BodyAnswer,
    Changes,
    HeadersAnswer,
    HeadersPart,
    Metadata,
    Phase,
    SetHeader,
)
from tests.nginx.ext_proc import Play, Stage, as_the_field_does, named, picks, serve_ext_proc
from tests.nginx.gateway import client_of
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.scene import Scene
from tests.nginx.servers import nobody, serve
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module")
async def scene(scene: Scene) -> AsyncIterator[Scene]:
    """The scene, and after the test without the pool that it adds."""
    yield scene
    await scene.gateway.apply("other.yaml")


def _says(answer: Answer, metadata: Metadata | None = None) -> Play:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(answer, metadata)
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.response()

    return play


def _set(*values: str, action: Action = Action.OVERWRITE) -> HeadersAnswer:
    """The header set once for each value; the first takes the place of what was there."""
    first, *more = values
    return HeadersAnswer(
        Phase.REQUEST,
        Changes(
            set=(
                SetHeader(ENDPOINT_KEY, first.encode()),
                *(SetHeader(ENDPOINT_KEY, value.encode(), action) for value in more),
            )
        ),
    )


LISTS: dict[str, Callable[[str, str], tuple[Answer, Metadata]]] = {
    "one": lambda a, b: (picks(b), {}),
    "the first of a list": lambda a, b: (picks(b, a), {}),
    "spaces around commas": lambda a, b: (_set(f" {b} , {a} "), {}),
    "empty items": lambda a, b: (_set(f",,{b},"), {}),
    "one that is no address before": lambda a, b: (_set(f"nonsense,{b}"), {}),
    "one outside of the pool before": lambda a, b: (picks("10.9.9.9:80", b), {}),
    "another port of a member before": lambda a, b: (picks(f"{b.rpartition(':')[0]}:1", b), {}),
    "repeated": lambda a, b: (_set("10.9.9.9:80", b, action=Action.APPEND), {}),
    "in the metadata alone": lambda a, b: (HeadersAnswer(Phase.REQUEST), named(b, a)),
    "in the metadata as a list": lambda a, b: (
        HeadersAnswer(Phase.REQUEST),
        {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: ["10.9.9.9:80", b]}},
    ),
    "in the header, and another one in the metadata": lambda a, b: (picks(b), named(a)),
}


@pytest.mark.parametrize("list_of", LISTS.values(), ids=LISTS)
async def test_first_member_of_the_pool_is_asked(
    scene: Scene, list_of: Callable[[str, str], tuple[Answer, Metadata]]
) -> None:
    scene.play = _says(*list_of(scene.a.address, scene.b.address))
    assert (await scene.post()).json()["server"] == "b"
    assert not scene.a.requests


async def _apply(
    scene: Scene, *addresses: str, pickers: tuple[str, ...] = (), mode: str = "FailClose", pool: str = "other"
) -> None:
    """Another pool, at the host `other.test`, with the picker of the scene unless there are others."""
    made = picked_pool(pool, *addresses, pickers=pickers or (scene.picker.address,), mode=mode)
    await scene.gateway.apply("other.yaml", made, route("other", rule(to_pool(pool)), hostnames=["other.test"]))


async def _ask(scene: Scene, body: bytes = b"{}") -> tuple[int, str]:
    """The status, and the server that answered."""
    # On a connection of its own, since a kept one may be that of a worker that serves what was before.
    async with client_of(scene.gateway) as http:
        got = await http.post("/v1/x", content=body, headers={"host": "other.test"})
    return got.status_code, got.json().get("server", "")


async def test_endpoint_that_refuses_connections_is_followed_by_the_next(scene: Scene) -> None:
    with nobody() as dead:
        await _apply(scene, dead, scene.b.address)
        scene.play = as_the_field_does(dead, scene.b.address)
        assert await _ask(scene, b"x" * 300_000) == (200, "b")


@pytest.mark.parametrize("mode", ["FailClose", "FailOpen"])
async def test_no_other_endpoint_is_asked_than_those_that_were_named(scene: Scene, mode: str) -> None:
    with nobody() as dead:
        await _apply(scene, dead, scene.b.address, mode=mode)
        scene.play = as_the_field_does(dead)
        assert (await _ask(scene))[0] == 502
    assert not scene.b.requests


@pytest.mark.parametrize(("mode", "outcome"), [("FailClose", (503, "")), ("FailOpen", (200, "a"))])
async def test_endpoint_of_another_pool_is_not_asked(scene: Scene, mode: str, outcome: tuple[int, str]) -> None:
    # The scene's own pools have both endpoints. This one never had the other.
    await _apply(scene, scene.a.address, mode=mode, pool="lone")
    scene.play = as_the_field_does(scene.b.address)
    assert await _ask(scene) == outcome
    assert not scene.b.requests


async def test_endpoint_that_has_just_left_the_pool_is_asked(scene: Scene) -> None:
    await _apply(scene, scene.a.address, scene.b.address)
    await _apply(scene, scene.a.address)
    scene.play = as_the_field_does(scene.b.address)
    assert await _ask(scene) == (200, "b")


@pytest.mark.parametrize("spelling", ["[::1]:{port}", "[0:0:0:0:0:0:0:1]:{port}", "[::0001]:{port}"])
async def test_endpoint_with_an_address_of_ipv6_is_asked(scene: Scene, spelling: str) -> None:
    async with AsyncExitStack() as stack:
        try:
            six = await stack.enter_async_context(serve(name="six", host="::1"))
        except OSError:
            pytest.skip("needs the address ::1")
        await _apply(scene, scene.a.address, six.address)
        scene.play = as_the_field_does(spelling.format(port=six.address.rpartition(":")[2]))
        assert await _ask(scene) == (200, "six")


async def test_each_target_port_is_an_endpoint_also_when_failing_open(scene: Scene) -> None:
    async with serve(name="rank-0") as zero, serve(name="rank-1") as one:
        await _apply(scene, zero.address, one.address)
        for backend, name in ((zero, "rank-0"), (one, "rank-1")):
            scene.play = as_the_field_does(backend.address)
            assert await _ask(scene) == (200, name)
        await _apply(scene, zero.address, one.address, pickers=(f"127.0.0.1:{free_ports(1)[0]}",), mode="FailOpen")
        assert {(await _ask(scene))[1] for _ in range(20)} == {"rank-0", "rank-1"}


async def test_both_phases_of_a_request_meet_one_picker(scene: Scene) -> None:
    play = as_the_field_does(scene.a.address)
    async with serve_ext_proc(play) as one, serve_ext_proc(play) as two:
        await _apply(scene, scene.a.address, pickers=(one.address, two.address))
        for _ in range(10):
            assert (await _ask(scene))[0] == 200
        await scene.rests()
        stages = [*one.stages, *two.stages]
        assert len(stages) == 10
        for stage in stages:
            heads = [part.phase for part, _ in stage.parts if isinstance(part, HeadersPart)]
            assert heads == [Phase.REQUEST, Phase.RESPONSE]
