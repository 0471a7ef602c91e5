"""Versions that a cluster's definitions say."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from controller.kube import Api
from controller.provider.kubernetes.versions import ANNOTATION, PATH, Versions
from tests.provider.kubernetes.fake import FakeApi

SECONDS = 15.0
NAMES = ("gateways", "httproutes")


@pytest_asyncio.fixture
async def api(server: FakeApi) -> AsyncIterator[Api]:
    async with server.client() as api:
        yield api


class Installed:
    """An API server with some definitions; None denies them."""

    def __init__(self, **versions: str) -> None:
        self.versions: dict[str, str] | None = versions
        self.asked = asyncio.Event()

    def answer(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if not request.path.startswith(PATH):
            return None
        self.asked.set()
        assert "as=PartialObjectMetadata" in request.headers["Accept"]
        name = request.path.removeprefix(f"{PATH}/").removesuffix(".gateway.networking.k8s.io")
        if self.versions is None:
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        if name not in self.versions:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        version = self.versions[name]
        return web.json_response({"metadata": {"name": name, "annotations": {ANNOTATION: version} if version else {}}})


async def test_versions_are_those_of_what_is_installed(server: FakeApi, api: Api) -> None:
    installed = Installed(gateways="v1.6.1")
    server.fault = installed.answer
    changed = asyncio.Event()
    versions = Versions(api, on_change=changed.set, names=NAMES, interval=0.01)
    assert versions.found is None

    async with asyncio.timeout(SECONDS):
        following = asyncio.create_task(versions.run())
        await changed.wait()
        assert versions.found == {"gateways": "v1.6.1"}

        changed.clear()
        installed.versions = {"gateways": "v1.6.1", "httproutes": ""}
        await changed.wait()
        assert versions.found == {"gateways": "v1.6.1", "httproutes": ""}
        following.cancel()


async def test_versions_that_may_not_be_read_are_told_once(
    server: FakeApi, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    installed = Installed()
    installed.versions = None
    server.fault = installed.answer
    versions = Versions(api, on_change=lambda: None, names=NAMES, interval=0.01)

    async with asyncio.timeout(SECONDS):
        with caplog.at_level(logging.WARNING):
            following = asyncio.create_task(versions.run())
            for _ in range(3):
                installed.asked.clear()
                await installed.asked.wait()
            following.cancel()
    assert [record.message for record in caplog.records] == ["versions of definitions may not be read"]
    assert versions.found is None
