import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controller.provider.kubernetes.events import EventRecorder
from controller.provider.kubernetes.store import Held
from controller.resources.meta import Key
from controller.status.notices import Notice
from tests.provider.kubernetes.fake import FakeApi, Json, refusal

EVENTS = "/apis/events.k8s.io/v1/events"
ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "demo", "chat")
HELD = Held("/path", "uid-1", "1", 1, "gateway.networking.k8s.io/v1", None, None)


@asynccontextmanager
async def recording(
    server: FakeApi, *, clock: Callable[[], float] = lambda: 0.0, waiting: int = 256
) -> AsyncIterator[EventRecorder]:
    server.kinds["/apis/events.k8s.io/v1"] = {"events": "Event"}
    async with server.client() as api:
        recorder = EventRecorder(
            api, held=lambda key: HELD, controller_name="infergate.dev/x", instance="pod", clock=clock, waiting=waiting
        )
        task = asyncio.ensure_future(recorder.run())
        try:
            yield recorder
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def written(server: FakeApi, *, count: int) -> list[Json]:
    async with asyncio.timeout(5):
        while True:
            found = server.all(EVENTS)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.005)


async def test_notice_becomes_an_event_of_its_resource(server: FakeApi) -> None:
    async with recording(server) as recorder:
        recorder.note(Notice(ROUTE, "NoMatchingParent", "parent edge: no listener has port 81"))
        (event,) = await written(server, count=1)
    assert (event["type"], event["reason"]) == ("Warning", "NoMatchingParent")
    assert event["note"] == "parent edge: no listener has port 81"
    assert (event["regarding"]["kind"], event["regarding"]["name"], event["regarding"]["uid"]) == (
        "HTTPRoute",
        "chat",
        "uid-1",
    )


async def test_same_notice_is_told_again_after_an_hour_only(server: FakeApi) -> None:
    now = [0.0]
    async with recording(server, clock=lambda: now[0]) as recorder:
        for _ in range(3):
            recorder.note(Notice(ROUTE, "Invalid", "same"))
        now[0] = 3601.0
        recorder.note(Notice(ROUTE, "Invalid", "same"))
        recorder.note(Notice(ROUTE, "Invalid", "other"))
        found = await written(server, count=3)
    assert sorted(item["note"] for item in found) == ["other", "same", "same"]


async def test_only_so_many_notices_wait(server: FakeApi) -> None:
    async with recording(server, waiting=3) as recorder:
        for number in range(10):
            recorder.note(Notice(ROUTE, "Invalid", f"number {number}"))
        assert len(await written(server, count=3)) == 3


async def test_event_that_is_refused_stops_nothing(server: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[web.Response] = [refusal(403, "Forbidden"), refusal(403, "Forbidden")]
    server.fault = lambda request: answers.pop() if answers else None
    async with recording(server) as recorder:
        for number in range(3):
            recorder.note(Notice(ROUTE, "Invalid", f"number {number}"))
        await written(server, count=1)
    assert caplog.text.count("events cannot be written") == 1


async def test_long_note_is_cut_by_bytes(server: FakeApi) -> None:
    async with recording(server) as recorder:
        recorder.note(Notice(ROUTE, "Invalid", "ü" * 1000))
        (event,) = await written(server, count=1)
    assert len(event["note"].encode()) <= 1024
