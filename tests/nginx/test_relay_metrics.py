"""What the relay counts, of requests that nginx sends it."""

import asyncio
import re
from collections.abc import Mapping

import httpx
import pytest

from controller.agent.state import RELAY_SOCKET
from controller.extproc.messages import BodyAnswer, HeadersAnswer, Immediate, Phase
from tests.nginx.ext_proc import Play, Stage, as_the_field_does, picks
from tests.nginx.gateway import eventually
from tests.nginx.resources import picked_pool, route, rule, to_pool
from tests.nginx.scene import Scene
from tests.nginx.servers import Request, describe, reset, response
from tests.ports import free_ports

pytestmark = [pytest.mark.nginx, pytest.mark.asyncio(loop_scope="module")]

POOL = 'pool="default/failclose"'
_OTHER = re.compile('(?:outcome|reason)="([a-z_]+)"')


async def _metrics(scene: Scene) -> dict[str, float]:
    return await scene.gateway.metrics(RELAY_SOCKET)


def _added(before: Mapping[str, float], after: Mapping[str, float], name: str) -> dict[str, float]:
    """What came to the series of a metric of the pool, by its other label."""
    start = f"infergate_relay_{name}_total{{"
    found = {key: after[key] - before.get(key, 0.0) for key in after if key.startswith(start) and POOL in key}
    return {_OTHER.findall(key)[0]: value for key, value in found.items() if value}


async def _dies(stage: Stage) -> None:
    await stage.request()
    await stage.context.abort(14, "gone")


async def _garbage(stage: Stage) -> None:
    await stage.request()
    await stage.send_raw(b"\xff\xff\xff")
    await stage.receive()


async def _late(stage: Stage) -> None:
    await stage.request()
    await stage.receive()


async def _refuses(stage: Stage) -> None:
    await stage.request()
    await stage.send(Immediate(429, b"full"))


async def _status_zero(stage: Stage) -> None:
    await stage.request()
    await stage.send(Immediate(0, b"what"))


async def _names_nobody(stage: Stage) -> None:
    await stage.request()
    await stage.send(HeadersAnswer(Phase.REQUEST))


async def _dies_in_the_answer(stage: Stage) -> None:
    await stage.request()
    await stage.send(picks("127.0.0.1:1"))


ENDS: dict[str, tuple[Play, str, dict[str, float]]] = {
    "refuses": (_refuses, "refused", {}),
    "dies": (_dies, "picker_failed", {"ended": 1}),
    "garbage": (_garbage, "picker_failed", {"unreadable": 1}),
    "late": (_late, "picker_failed", {"late": 1}),
    "status zero": (_status_zero, "picker_failed", {"unacceptable": 1}),
    "names nobody": (_names_nobody, "picker_failed", {"no_endpoint": 1}),
    "names a stranger": (_dies_in_the_answer, "picker_failed", {"outside_pool": 1}),
}


@pytest.mark.parametrize(("play", "outcome", "reasons"), ENDS.values(), ids=ENDS)
async def test_requests_are_counted_by_how_they_ended(
    scene: Scene, play: Play, outcome: str, reasons: dict[str, float]
) -> None:
    before, scene.play = await _metrics(scene), play
    await scene.post()
    await scene.rests()
    after = await _metrics(scene)

    assert _added(before, after, "requests") == {outcome: 1}
    assert _added(before, after, "picker_failures") == reasons


async def test_tries_and_endpoints_that_fail_are_counted(scene: Scene) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await (reset if request.server == "a" else describe)(request, writer)

    before, scene.answer = await _metrics(scene), answer
    scene.play = as_the_field_does(scene.a.address, scene.b.address)
    await scene.post()
    scene.play = as_the_field_does(scene.a.address)
    await scene.post()
    await scene.rests()
    after = await _metrics(scene)

    assert _added(before, after, "requests") == {"served": 1, "endpoint_failed": 1}
    name = f"infergate_relay_endpoint_failures_total{{{POOL}}}"
    assert after[name] - before.get(name, 0) == 2


async def test_picker_that_fails_in_the_answer_is_counted_and_the_request_is_served(scene: Scene) -> None:
    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await stage.receive()
        await stage.context.abort(13, "a mistake")

    before, scene.play = await _metrics(scene), play
    assert (await scene.post()).status_code == 200
    await scene.rests()
    after = await _metrics(scene)

    assert _added(before, after, "requests") == {"served": 1}
    assert _added(before, after, "picker_failures") == {"ended": 1}


async def test_broken_answer_and_hang_up_are_counted(scene: Scene) -> None:
    reached, hang = asyncio.Event(), asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfive!")
        await writer.drain()
        reached.set()
        if hang.is_set():
            await request.hung_up()
        writer.close()

    before, scene.answer = await _metrics(scene), answer
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.post()
    hang.set()
    reached.clear()
    asking = asyncio.create_task(scene.post())
    async with asyncio.timeout(10):
        await reached.wait()
    asking.cancel()
    await scene.rests()
    assert _added(before, await _metrics(scene), "requests") == {"broken": 1, "given_up": 1}


async def test_picker_that_is_not_there_is_unreachable(scene: Scene) -> None:
    (port,) = free_ports(1)
    made = picked_pool("lost", scene.a.address, pickers=[f"127.0.0.1:{port}"])
    await scene.gateway.apply("lost.yaml", made, route("lost", rule(to_pool("lost")), hostnames=["lost.test"]))
    answer = await scene.http.post("/v1/x", content=b"{}", headers={"host": "lost.test"})
    metrics = await _metrics(scene)

    assert answer.status_code == 503
    assert metrics['infergate_relay_picker_failures_total{pool="default/lost",reason="unreachable"}'] == 1
    assert metrics[f'infergate_relay_picker_connected{{picker="127.0.0.1:{port}"}}'] == 0

    async def is_forgotten() -> bool:
        return not [name for name in await _metrics(scene) if "lost" in name or str(port) in name]

    await scene.gateway.apply("lost.yaml")
    await eventually(is_forgotten)


async def test_log_tells_the_time_until_a_choice(scene: Scene) -> None:
    name = f"infergate_relay_choice_seconds_sum{{{POOL}}}"
    before = (await _metrics(scene)).get(name, 0.0)
    chosen = await scene.post()
    took = (await _metrics(scene))[name] - before
    scene.play = _refuses
    refused = await scene.post()

    told = (await scene.gateway.logged(chosen.headers["x-request-id"]))["pick_seconds"]
    assert 0 <= took - told < 0.001
    assert (await scene.gateway.logged(refused.headers["x-request-id"]))["pick_seconds"] is None


async def test_requests_in_hand_and_the_time_until_a_choice_are_told(scene: Scene) -> None:
    go_on = asyncio.Event()

    async def play(stage: Stage) -> None:
        await stage.request()
        await stage.send(picks(scene.a.address))
        await stage.send(BodyAnswer(Phase.REQUEST))
        await go_on.wait()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"ok"))

    before = await _metrics(scene)
    scene.play, scene.answer = play, answer
    picker = f'{{picker="{scene.picker.address}"}}'
    asking = asyncio.create_task(scene.post())

    async def is_in_hand() -> bool:
        metrics = await _metrics(scene)
        return (
            metrics[f"infergate_relay_requests_in_flight{{{POOL}}}"] == 1
            and metrics[f"infergate_relay_streams{picker}"] == 1
            and metrics[f"infergate_relay_picker_connected{picker}"] == 1
        )

    await eventually(is_in_hand)
    go_on.set()
    await asking
    await scene.rests()
    after = await _metrics(scene)

    assert after[f"infergate_relay_requests_in_flight{{{POOL}}}"] == 0
    assert after[f"infergate_relay_streams{picker}"] == 0
    count = f"infergate_relay_choice_seconds_count{{{POOL}}}"
    assert after[count] - before.get(count, 0) == 1


async def test_requests_add_no_series(scene: Scene) -> None:
    for _ in range(2):
        await scene.post()
    before = set(await _metrics(scene))
    for number in range(50):
        await scene.post(b'{"model": "m%d"}' % number, x_tenant=str(number))
    assert set(await _metrics(scene)) == before
