"""The tests of `test_picked`, what requests and answers are like, with our own picker as an external one."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio

from controller.agent.nginx import Nginx
from tests.nginx.both_ends import BothEnds, run_both_ends
from tests.nginx.gateway import client_of
from tests.nginx.test_picked import *  # noqa: F403 - each test is one of this module, with the gateway below


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(root: Path, nginx: Nginx) -> AsyncIterator[BothEnds]:
    async with run_both_ends(root, nginx) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: BothEnds) -> AsyncIterator[httpx.AsyncClient]:
    # A body of 50 MB passes eight times between five parties, and this process is one of them.
    async with client_of(gateway, timeout=60.0) as client:
        yield client
