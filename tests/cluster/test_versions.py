"""Versions of the definitions of a real API server."""

import asyncio

import pytest

from controller.kube import Api
from controller.provider.kubernetes.versions import ANNOTATION, PATH, Versions
from controller.status.versions import supported_version


async def test_versions_are_those_of_the_installed_definitions(api: Api) -> None:
    listed = await api.request("GET", PATH)
    ours = {
        item["spec"]["names"]["plural"]: item["metadata"].get("annotations", {}).get(ANNOTATION, "")
        for item in listed["items"]
        if item["spec"]["group"] == "gateway.networking.k8s.io"
    }
    if not ours:
        pytest.skip("the cluster has no definitions of Gateway API")
    known = asyncio.Event()
    versions = Versions(api, on_change=known.set)
    async with asyncio.timeout(15):
        looking = asyncio.create_task(versions.run())
        await known.wait()
        looking.cancel()
    assert versions.found == ours
    condition = supported_version(versions.found)
    assert condition is not None
    assert condition.status is all(version.startswith("v1.6.") for version in ours.values())
