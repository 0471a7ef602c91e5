from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from controller.simulator.pods import Simulation, serve
from controller.simulator.settings import PodSettings

Start = Callable[..., Awaitable[Simulation]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts pods that are fifty times as fast as the defaults; settings are arguments."""
    running: list[Simulation] = []

    async def start(*names: str, **settings: object) -> Simulation:
        given = {"model": "base", "speed": 50, **settings}
        pods = [PodSettings.model_validate({"name": name, **given}) for name in names or ("a",)]
        running.append(await serve(pods, host="127.0.0.1"))
        return running[-1]

    yield start
    for simulation in running:
        await simulation.stop()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client
