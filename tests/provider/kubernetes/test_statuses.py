"""Statuses over HTTP: what is written, when, and what happens when others write too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from controller.provider.kubernetes.provider import KubernetesProvider
from controller.provider.kubernetes.statuses import StatusWriter
from controller.resources.meta import Key
from controller.status.notices import Notice
from controller.status.types import StatusUpdate
from tests.provider.kubernetes.fake import ROUTES, FakeApi, refusal, route

US = "infergate.dev/gateway-controller"
GATEWAYS = "/apis/gateway.networking.k8s.io/v1/gateways"
Json = dict[str, Any]  # a piece of a status


def key(name: str) -> Key:
    return Key("gateway.networking.k8s.io", "HTTPRoute", "demo", name)


def condition(type_: str = "Accepted", *, status: str = "True", reason: str = "Accepted", message: str = "") -> Json:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def parents(*conditions: Json) -> Json:
    return {"parents": [{"parentRef": {"name": "edge"}, "controllerName": US, "conditions": list(conditions)}]}


def update(name: str, **fields: str) -> StatusUpdate:
    return StatusUpdate(key(name), 1, parents(condition(**fields)))


@dataclass
class Loop:
    """A provider and a writer that is told what the provider sees."""

    server: FakeApi
    writer: StatusWriter
    leads: bool = True
    notices: list[Notice] = field(default_factory=list)

    def reasons(self, name: str) -> list[str]:
        """Reasons of our conditions of a route."""
        entries = self.server.get(ROUTES, name).get("status", {}).get("parents", [])
        return [one["reason"] for item in entries if item["controllerName"] == US for one in item["conditions"]]

    def writes(self) -> list[web.BaseRequest]:
        return [item for item in self.server.asked if item.method == "PATCH"]


@asynccontextmanager
async def looping(
    server: FakeApi, *, concurrency: int = 16, leads: bool = True, calm: asyncio.Event | None = None
) -> AsyncIterator[Loop]:
    async with server.client() as api:
        provider = KubernetesProvider(api, on_seen=lambda key: loop.writer.look_at(key))
        writer = StatusWriter(
            api,
            held=provider.held,
            controller_name=US,
            is_leader=lambda: loop.leads,
            outage=provider.outage,
            on_notice=lambda notice: loop.notices.append(notice),
            calm=waits_for(calm),
            now=lambda: datetime(2025, 1, 1, tzinfo=UTC),
            concurrency=concurrency,
        )
        loop = Loop(server, writer, leads)
        async with aclosing(provider.snapshots()) as snapshots:
            await anext(snapshots)
            task = asyncio.ensure_future(writer.run())
            try:
                yield loop
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def waits_for(calm: asyncio.Event | None) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        if calm is not None:
            await calm.wait()

    return wait


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


async def test_status_is_written_once(server: FakeApi) -> None:
    for name in ("one", "two"):
        await server.put(ROUTES, route(name))
    async with looping(server) as loop:
        loop.writer.want([update("one")])
        await until(lambda: loop.reasons("one") == ["Accepted"])
        loop.writer.look_at_all()
        loop.writer.want([update("one"), update("two")])
        await until(lambda: loop.reasons("two") == ["Accepted"])
        assert len(loop.writes()) == 2
    (written,) = server.get(ROUTES, "one")["status"]["parents"][0]["conditions"]
    assert (written["observedGeneration"], written["lastTransitionTime"]) == (1, "2025-01-01T00:00:00Z")


async def test_condition_of_a_generation_that_there_is_not_is_overwritten(server: FakeApi) -> None:
    left = {**condition(reason="Restored"), "observedGeneration": 9, "lastTransitionTime": "2024-01-01T00:00:00Z"}
    await server.put(ROUTES, {**route("one"), "status": parents(left)})
    async with looping(server) as loop:
        loop.writer.want([update("one")])
        await until(lambda: loop.reasons("one") == ["Accepted"])
    (written,) = server.get(ROUTES, "one")["status"]["parents"][0]["conditions"]
    assert written["observedGeneration"] == 1


async def test_newest_status_is_written_when_the_api_server_has_less_to_do(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    calm = asyncio.Event()
    async with looping(server, calm=calm) as loop:
        loop.writer.want([update("one", reason="NoMatchingParent")])
        # Another request is answered meanwhile.
        await server.put(ROUTES, route("two"))
        loop.writer.want([update("one")])
        assert not loop.writes()
        calm.set()
        await until(lambda: loop.reasons("one") == ["Accepted"])
        assert len(loop.writes()) == 1


async def test_entries_of_other_controllers_stay_through_a_conflict(server: FakeApi) -> None:
    stored = await server.put(ROUTES, route("one"))
    theirs = {"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": []}
    fresh = [True]

    def race(request: web.BaseRequest) -> web.Response | None:
        """Answers as a server does that another controller just wrote to."""
        if request.method == "PATCH" and fresh:
            fresh.clear()
            asyncio.ensure_future(server.put(ROUTES, {**stored, "status": {"parents": [theirs]}}))  # noqa: RUF006
            return refusal(409, "Conflict")
        return None

    server.fault = race
    async with looping(server) as loop:
        loop.writer.want([update("one")])
        await until(lambda: loop.reasons("one") == ["Accepted"])
    controllers = [item["controllerName"] for item in server.get(ROUTES, "one")["status"]["parents"]]
    assert controllers == ["example.com/other", US]


async def test_write_on_an_old_version_is_a_conflict_and_is_repeated(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with looping(server) as loop:
        server.cut()
        server.fault = lambda request: refusal(503, "Unavailable") if "watch" in request.query else None
        stored = server.get(ROUTES, "one")
        theirs = {"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": []}
        await server.put(ROUTES, {**stored, "status": {"parents": [theirs]}})
        loop.writer.want([update("one")])
        await until(lambda: len(loop.writes()) >= 2)
        assert loop.reasons("one") == []
        server.fault = lambda request: None
        await until(lambda: loop.reasons("one") == ["Accepted"])
    controllers = [item["controllerName"] for item in server.get(ROUTES, "one")["status"]["parents"]]
    assert controllers == ["example.com/other", US]


async def test_watch_that_lags_behind_our_own_writes_causes_none(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with looping(server) as loop:
        server.fault = lambda request: refusal(503, "Unavailable") if "watch" in request.query else None
        server.cut()
        for reason in ("Accepted", "NoMatchingParent", "Accepted"):
            loop.writer.want([update("one", reason=reason)])
            await until(lambda reason=reason: loop.reasons("one") == [reason])  # type: ignore[misc]  # bound at once
        asked = len(server.watches(ROUTES))
        server.fault = lambda request: None
        await until(lambda: len(server.watches(ROUTES)) > asked)
        await server.put(ROUTES, route("two"))
        loop.writer.want([update("one"), update("two")])
        await until(lambda: loop.reasons("two") == ["Accepted"])
        assert len(loop.writes()) == 4


async def test_status_that_somebody_changes_is_repaired(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with looping(server) as loop:
        loop.writer.want([update("one")])
        await until(lambda: loop.reasons("one") == ["Accepted"])
        await server.put(ROUTES, {**server.get(ROUTES, "one"), "status": {"parents": []}})
        await until(lambda: loop.reasons("one") == ["Accepted"])


async def test_resource_that_is_ours_no_longer_loses_our_entries(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with looping(server) as loop:
        loop.writer.want([update("one")])
        await until(lambda: loop.reasons("one") == ["Accepted"])
        loop.writer.want([])
        await until(lambda: loop.reasons("one") == [])


async def test_status_that_cannot_be_written_holds_up_no_other(
    server: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        await server.put(ROUTES, route(name))
    server.fault = lambda request: refusal(422, "Invalid") if "httproutes/one" in request.path else None
    async with looping(server, concurrency=1) as loop:
        loop.writer.want([update("one"), update("two")])
        await until(lambda: loop.reasons("two") == ["Accepted"])
        await until(lambda: len([item for item in loop.writes() if "one" in item.path]) >= 3)
        server.fault = lambda request: None
        await until(lambda: loop.reasons("one") == ["Accepted"])
    assert caplog.text.count("status cannot be written") == 1


async def test_what_could_not_be_written_is_written_when_the_server_is_back(
    server: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        await server.put(ROUTES, route(f"r{number}"))
    async with looping(server) as loop:
        await server.stop()
        loop.writer.want([update(f"r{number}") for number in range(20)])
        await until(lambda: "does not answer" in caplog.text)
        await server.start()
        await until(lambda: all(loop.reasons(f"r{number}") for number in range(20)))
    assert caplog.text.count("does not answer") == 1


async def test_only_a_leader_writes_and_a_new_one_writes_all(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    await server.put(ROUTES, route("two"))
    async with looping(server, leads=False) as loop:
        loop.writer.want([update("one"), update("two")])
        await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.1)
        assert loop.writes() == []
        loop.leads = True
        loop.writer.look_at_all()
        await until(lambda: loop.reasons("one") == loop.reasons("two") == ["Accepted"])


async def test_what_turned_bad_is_told_once(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    bad = update("one", status="False", reason="NoMatchingParent", message="no listener has port 81")
    async with looping(server) as loop:
        loop.writer.want([bad])
        await until(lambda: loop.reasons("one") == ["NoMatchingParent"])
        loop.writer.want([update("one", status="False", reason="NoMatchingParent", message="in other words")])
        await until(lambda: len(loop.writes()) == 2)
        await until(lambda: bool(loop.notices))
    (notice,) = loop.notices
    assert notice.reason == "NoMatchingParent"
    assert notice.message == "parent edge: Accepted=False/NoMatchingParent: no listener has port 81"


async def test_many_statuses_are_written_a_few_at_a_time(server: FakeApi) -> None:
    for number in range(100):
        await server.put(ROUTES, route(f"r{number}"))
    async with looping(server, concurrency=4) as loop:
        loop.writer.want([update(f"r{number}") for number in range(100)])
        await until(lambda: all(loop.reasons(f"r{number}") for number in range(100)))
    assert server.most_at_once("PATCH") <= 4
    assert len(loop.writes()) == 100
