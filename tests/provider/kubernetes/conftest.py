from collections.abc import AsyncIterator

import pytest

from tests.provider.kubernetes.fake import FakeApi


@pytest.fixture
async def server() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    await fake.start()
    yield fake
    await fake.stop()
