from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from controller.agent.nginx import Nginx
from controller.agent.state import RELAY_SOCKET
from tests.nginx.gateway import Gateway, Run, client_of, run_gateway
from tests.nginx.scene import Scene, run_scene


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the gateway of a module."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def run() -> Run:
    """Makes a gateway. Tests that use it pass with gateways of every kind."""
    return run_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx, run: Run) -> AsyncIterator[Gateway]:
    """A gateway without routes, for the tests of a module."""
    async with run(root, nginx) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks HTTP/1.1 to the gateway."""
    async with client_of(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def relay_options() -> Sequence[str]:
    """What else the relay of a scene is told on its command line."""
    return ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_scene(root: Path, nginx: Nginx, relay_options: Sequence[str]) -> AsyncIterator[Scene]:
    """The scene of all tests of a module, which may add to it."""
    async with run_scene(root, nginx, relay_options=relay_options) as scene:
        yield scene


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared_scene: Scene) -> AsyncIterator[Scene]:
    """The scene as it begins, and after the test at rest, with no body in memory."""
    shared_scene.reset()
    yield shared_scene
    await shared_scene.rests()
    assert (await shared_scene.gateway.metrics(RELAY_SOCKET))["infergate_relay_body_bytes"] == 0
