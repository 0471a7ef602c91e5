"""The provider over HTTP: what it survives, and what it passes on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from controller.provider.base import Change
from controller.provider.kubernetes.provider import KubernetesProvider
from controller.resources.gateway_api import HTTPRoute
from controller.resources.inference import InferencePool
from controller.resources.legacy import LegacyInferencePool
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from tests.provider.kubernetes.fake import PODS, ROUTES, FakeApi, refusal, route

Snapshots = AsyncGenerator[tuple[Snapshot, Change], None]


def paths(snapshot: Snapshot) -> dict[str, str]:
    """First path of each route."""
    return {item.metadata.name: item.spec.rules[0].matches[0].path.value or "" for item in snapshot.of(HTTPRoute)}


@asynccontextmanager
async def followed(
    server: FakeApi,
    **options: Any,  # Any: options of the provider
) -> AsyncIterator[tuple[KubernetesProvider, Snapshots]]:
    async with server.client() as api:
        provider = KubernetesProvider(api, discovery_interval=0.05, **options)
        async with aclosing(provider.snapshots()) as snapshots:
            yield provider, snapshots


async def until(snapshots: Snapshots, holds: Callable[[Snapshot], bool]) -> tuple[Snapshot, Change]:
    async with asyncio.timeout(10):
        async for snapshot, change in snapshots:
            if holds(snapshot):
                return snapshot, change
    raise AssertionError("the snapshots ended")


async def seen(holds: Callable[[], bool]) -> None:
    """Waits until the server was asked for something, or something was logged."""
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


async def test_list_is_read_in_pages(server: FakeApi) -> None:
    for number in range(1001):
        await server.put(ROUTES, route(f"r{number}"))
    async with followed(server) as (_, snapshots):
        first, change = await anext(snapshots)
    assert len(paths(first)) == 1001
    assert [item.query.get("continue") for item in server.lists(ROUTES)] == [None, "500", "1000"]
    assert (change.sources, change.descriptions) == ((), ())


async def test_watch_goes_on_after_a_break_without_another_list(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))
        server.cut()
        await server.put(ROUTES, route("two"))
        await until(snapshots, lambda found: set(paths(found)) == {"one", "two"})
    assert len(server.lists(ROUTES)) == 1


async def test_bookmark_moves_the_place_where_a_watch_goes_on(server: FakeApi) -> None:
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))
        version = await server.bookmark(ROUTES)
        await server.put(ROUTES, route("one"))
        await until(snapshots, lambda found: set(paths(found)) == {"one"})
        server.cut()
        await seen(lambda: len(server.watches(ROUTES)) == 2)
        assert int(server.watches(ROUTES)[1].query["resourceVersion"]) > version
    assert server.watches(ROUTES)[0].query["allowWatchBookmarks"] == "true"


async def test_expired_watch_lists_again_and_forgets_what_is_gone(server: FakeApi) -> None:
    for name in ("one", "two"):
        await server.put(ROUTES, route(name))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))
        await server.delete(ROUTES, "one", tell=False)
        server.expire()
        snapshot, change = await until(snapshots, lambda found: set(paths(found)) == {"two"})
    assert change.sources == ("HTTPRoute demo/one",)
    assert snapshot.rejections == ()


async def test_server_that_went_back_in_time_is_listed_again(server: FakeApi) -> None:
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))
        server.fault = lambda request: refusal(504, "Timeout") if "watch" in request.query else None
        server.cut()
        await seen(lambda: len(server.lists(ROUTES)) == 2)
        server.fault = lambda request: None
        await server.put(ROUTES, route("one"))
        await until(snapshots, lambda found: set(paths(found)) == {"one"})


async def test_last_snapshot_stays_while_the_server_is_away(server: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await server.put(ROUTES, route("one"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await server.stop()
        waiting = asyncio.ensure_future(anext(snapshots))
        await seen(lambda: "does not answer" in caplog.text)
        assert not waiting.done()
        await server.put(ROUTES, route("two"))
        await server.start()
        snapshot, _ = await asyncio.wait_for(waiting, 10)
        await seen(lambda: "answers again" in caplog.text)
    assert set(paths(snapshot)) == {"one", "two"}
    assert caplog.text.count("does not answer") == 1


async def test_provider_waits_for_a_server_that_is_not_there_yet(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    await server.stop()
    async with followed(server) as (_, snapshots):
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
        await server.start()
        first, _ = await asyncio.wait_for(waiting, 10)
    assert set(paths(first)) == {"one"}


async def test_kind_that_may_not_be_read_holds_up_no_other(server: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    await server.put(ROUTES, route("one"))

    def denied(request: web.BaseRequest) -> web.Response | None:
        return refusal(403, "Forbidden") if request.path.startswith("/api/v1/namespaces") else None

    server.fault = denied
    async with followed(server) as (_, snapshots):
        first, _ = await asyncio.wait_for(anext(snapshots), 10)
    assert set(paths(first)) == {"one"}
    assert caplog.text.count("resources cannot be read") == 1


async def test_server_that_asks_to_wait_is_obeyed(server: FakeApi) -> None:
    answers = [refusal(429, "TooManyRequests", wait=1)]
    server.fault = lambda request: answers.pop() if request.path == ROUTES and answers else None
    began = asyncio.get_running_loop().time()
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
    assert asyncio.get_running_loop().time() - began >= 1.0


async def test_kind_is_read_once_it_is_served_and_gone_when_it_is_not(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    prefix = "/apis/gateway.networking.k8s.io/v1"
    resources = server.kinds.pop(prefix)
    async with followed(server) as (_, snapshots):
        first, _ = await anext(snapshots)
        assert paths(first) == {}
        server.kinds[prefix] = resources
        await until(snapshots, lambda found: set(paths(found)) == {"one"})
        del server.kinds[prefix]
        server.cut()
        await until(snapshots, lambda found: paths(found) == {})


async def test_pools_of_both_groups_are_read_where_their_groups_are_served(server: FakeApi) -> None:
    present, legacy = "/apis/inference.networking.k8s.io/v1", "/apis/inference.networking.x-k8s.io/v1alpha2"
    server.kinds[present] = {"inferencepools": "InferencePool"}
    pool = {"kind": "InferencePool", "metadata": {"name": "llm", "namespace": "demo"}}
    new = {"selector": {"matchLabels": {"app": "llm"}}, "targetPorts": [{"number": 8000}]}
    old = {"selector": {"app": "llm"}, "targetPortNumber": 8000}
    await server.put(f"{present}/inferencepools", {**pool, "apiVersion": present.removeprefix("/apis/"), "spec": new})
    async with followed(server) as (_, snapshots):
        first, _ = await anext(snapshots)
        assert [item.key.group for item in first.resources] == ["inference.networking.k8s.io"]
        assert not server.lists(f"{legacy}/inferencepools")
        server.kinds[legacy] = {"inferencepools": "InferencePool"}
        old_pool = {**pool, "apiVersion": legacy.removeprefix("/apis/"), "spec": old}
        await server.put(f"{legacy}/inferencepools", old_pool)
        found, _ = await until(snapshots, lambda snapshot: len(snapshot.resources) == 2)
    assert {type(item) for item in found.resources} == {InferencePool, LegacyInferencePool}


async def test_kind_that_only_discovery_lacks_stays(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        nothing = {"kind": "APIGroupDiscoveryList", "items": []}
        server.fault = lambda request: web.json_response(nothing) if request.path == "/apis" else None
        looks = len(server.lists("/apis"))
        await seen(lambda: len(server.lists("/apis")) >= looks + 4)
        await server.put(ROUTES, route("two"))
        snapshot, _ = await anext(snapshots)
    assert set(paths(snapshot)) == {"one", "two"}


async def test_broken_object_is_a_rejection_and_its_last_good_form_stays(server: FakeApi) -> None:
    await server.put(ROUTES, route("one", path="/a"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await server.put(ROUTES, route("one", path="no slash"))
        snapshot, _ = await anext(snapshots)
        assert paths(snapshot) == {"one": "/a"}
        (rejection,) = snapshot.rejections
        assert (rejection.subject, rejection.field) == ("HTTPRoute demo/one", "spec.rules[0].matches[0].path.value")
        assert rejection.source == "/apis/gateway.networking.k8s.io/v1/namespaces/demo/httproutes/one"
        await server.put(ROUTES, route("one", path="/b"))
        snapshot, _ = await anext(snapshots)
        assert (paths(snapshot), snapshot.rejections) == ({"one": "/b"}, ())


async def test_object_made_anew_and_broken_has_no_last_good_form(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await server.delete(ROUTES, "one")
        await server.put(ROUTES, route("one", path="no slash"))
        snapshot, _ = await until(snapshots, lambda found: bool(found.rejections))
    assert paths(snapshot) == {}


async def test_status_alone_gives_no_snapshot_and_is_told_at_once(server: FakeApi) -> None:
    stored = await server.put(ROUTES, route("one"))
    told: list[Key] = []
    async with followed(server, on_seen=told.append) as (provider, snapshots):
        await anext(snapshots)
        told.clear()
        await server.put(ROUTES, {**stored, "status": {"parents": []}})
        await seen(lambda: bool(told))
        await server.put(ROUTES, route("two"))
        _, change = await anext(snapshots)
        held = provider.held(told[0])
    assert change.sources == ("HTTPRoute demo/two",)
    assert held is not None
    assert held.status == {"parents": []}


async def test_storm_is_gathered_and_passed_on_in_time(server: FakeApi) -> None:
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))

        async def storm() -> None:
            for number in range(100):
                await server.put(ROUTES, route(f"r{number}"))
                await asyncio.sleep(0.005)

        storming = asyncio.ensure_future(storm())
        counts: list[int] = []
        while not counts or counts[-1] < 100:
            snapshot, change = await asyncio.wait_for(anext(snapshots), 5)
            counts.append(len(paths(snapshot)))
            assert asyncio.get_running_loop().time() - change.detected_at < 0.5
        await storming
    assert 2 <= len(counts) <= 10


async def test_object_that_is_listed_again_is_not_parsed_again(server: FakeApi) -> None:
    await server.put(ROUTES, route("one"))
    async with followed(server) as (_, snapshots):
        first, _ = await anext(snapshots)
        await seen(lambda: bool(server.watches(ROUTES)))
        await server.bookmark(PODS)
        server.expire()
        await seen(lambda: len(server.lists(ROUTES)) == 2)
        await server.put(ROUTES, route("two"))
        second, _ = await anext(snapshots)
    one, again = (next(item for item in found.of(HTTPRoute)) for found in (first, second))
    assert one is again


async def test_pods_that_are_over_and_other_secrets_are_not_asked_for(server: FakeApi) -> None:
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
    asked = {item.path: item.query.get("fieldSelector") for item in server.asked}
    assert asked[PODS] == "status.phase!=Succeeded,status.phase!=Failed"
    assert asked["/api/v1/secrets"] == "type=kubernetes.io/tls"


async def test_only_config_maps_of_adapters_are_asked_for(server: FakeApi) -> None:
    async with followed(server) as (_, snapshots):
        await anext(snapshots)
        await seen(lambda: bool(server.watches("/api/v1/configmaps")))
    asked = {item.query.get("labelSelector") for item in server.asked if item.path == "/api/v1/configmaps"}
    assert asked == {"inference.llm-d.ai/ipp-managed=true"}
