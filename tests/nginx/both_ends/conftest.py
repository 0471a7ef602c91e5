from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.nginx.both_ends.gateway import BothEnds, run_both_ends
from tests.nginx.both_ends.left_out import TESTS
from tests.nginx.gateway import Run, client_of


@pytest.fixture(scope="module")
def run() -> Run:
    """A gateway whose pools have our own picker as an external one."""
    return run_both_ends


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: BothEnds) -> AsyncIterator[httpx.AsyncClient]:
    # A body of 50 MB passes eight times between five parties, of which this process is two.
    async with client_of(gateway, timeout=60.0) as client:
        yield client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what does not hold over the protocol, with its reason."""
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        for name, reason in TESTS.get(item.path.stem, {}).items():
            if item.name == name or item.name.startswith(name if "[" in name else f"{name}["):
                item.add_marker(pytest.mark.skip(reason=reason))
