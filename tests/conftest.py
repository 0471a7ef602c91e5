"""Options of the test run."""

import importlib
import os
import sys

import pytest
from hypothesis import settings

from controller import compiled
from controller.agent.nginx import Nginx, find
from controller.errors import NginxMissing

# How long an example takes says something of the machine, not of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if "--compiled" in sys.argv:
    # Before another conftest.py imports what it tests.
    compiled.install({})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-cases", action="store_true", help="rewrite the expected files of tests/cases")
    parser.addoption("--compiled", action="store_true", help="import the compiled modules, which must all be there")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--compiled"):
        sources = [name for name in compiled.MODULES if not compiled.is_compiled(importlib.import_module(name))]
        if sources:
            raise pytest.UsageError(f"not compiled: {', '.join(sources)}")


@pytest.fixture(scope="session")
def nginx() -> Nginx:
    """The nginx of this machine. A test that needs one is skipped where there is none."""
    try:
        return find(environment=os.environ)
    except NginxMissing as error:
        pytest.skip(str(error))
