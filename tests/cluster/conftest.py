"""A real API server: the one that KUBECONFIG names. Tests make namespaces of their own in it, and remove them."""

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.errors import ApiError
from controller.kube import Api, configuration


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("KUBECONFIG names no cluster")
    async with Api(await configuration(Path(kubeconfig)), timeout=10) as api:
        try:
            await api.request("GET", "/version")
        except ApiError as problem:
            pytest.skip(f"the cluster of KUBECONFIG does not answer: {problem}")
        yield api


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    await api.request("DELETE", f"/api/v1/namespaces/{name}")
