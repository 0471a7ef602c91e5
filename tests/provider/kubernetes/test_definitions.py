"""Fields that a cluster's definitions have or lack."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web

from controller.kube import Api
from controller.provider.kubernetes.definitions import Definitions
from tests.provider.kubernetes.fake import FakeApi, Json

RETRY = ("HTTPRoute", "spec", "rules", "retry")
SECONDS = 15.0


class Described:
    """An API server that describes routes whose rules have some fields."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields
        self.unchanged = 0
        """Answers without content."""

    def answer(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if not request.path.startswith("/openapi/v3/"):
            return None
        tag = f'"{",".join(self.fields)}"'
        if request.headers.get("If-None-Match") == tag:
            self.unchanged += 1
            return web.Response(status=304)
        rule: Json = {"type": "object", "properties": {name: {"type": "object"} for name in self.fields}}
        route = {
            "properties": {"spec": {"properties": {"rules": {"type": "array", "items": rule}}}},
            "x-kubernetes-group-version-kind": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
        }
        body = {"components": {"schemas": {"v1.HTTPRoute": route, "v1.Other": {}}}}
        return web.json_response(body, headers={"ETag": tag})


@pytest_asyncio.fixture
async def api(server: FakeApi) -> AsyncIterator[Api]:
    async with server.client() as api:
        yield api


async def test_field_that_definitions_lack_is_missing_until_they_have_it(server: FakeApi, api: Api) -> None:
    described = Described("matches")
    server.fault = described.answer
    changed = asyncio.Event()
    definitions = Definitions(api, [RETRY], on_change=changed.set, interval=0.01)

    async with asyncio.timeout(SECONDS):
        following = asyncio.create_task(definitions.run())
        await changed.wait()
        assert definitions.missing == {RETRY}

        changed.clear()
        described.fields = ("matches", "retry")
        await changed.wait()
        assert definitions.missing == frozenset()
        following.cancel()


async def test_definitions_that_stay_are_sent_once(server: FakeApi, api: Api) -> None:
    described = Described("matches")
    server.fault = described.answer
    definitions = Definitions(api, [RETRY], on_change=lambda: None, interval=0.01)

    async with asyncio.timeout(SECONDS):
        following = asyncio.create_task(definitions.run())
        while described.unchanged < 3:  # noqa: ASYNC110 - what is waited for is another task's request
            await asyncio.sleep(0.01)
        following.cancel()
    assert definitions.missing == {RETRY}


async def test_nothing_is_missing_where_nothing_is_described(server: FakeApi, api: Api) -> None:
    refused = asyncio.Event()

    def refuse(request: web.BaseRequest) -> web.StreamResponse | None:
        refused.set()
        return web.json_response({"kind": "Status", "code": 403}, status=403)

    server.fault = refuse
    definitions = Definitions(api, [RETRY], on_change=lambda: None, interval=0.01)
    async with asyncio.timeout(SECONDS):
        following = asyncio.create_task(definitions.run())
        await refused.wait()
        following.cancel()
    assert definitions.missing == frozenset()
