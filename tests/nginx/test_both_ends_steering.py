"""The tests of `test_steering`, headers that steer, with our own picker as an external one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.both_ends import BothEnds, run_both_ends
from tests.nginx.test_steering import *  # noqa: F403 - each test is one of this module, with the gateway below


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx) -> AsyncIterator[BothEnds]:
    async with run_both_ends(root, nginx) as gateway:
        yield gateway
