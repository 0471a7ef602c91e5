import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_PATIENCE = 30.0


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[], list[str]]:
    """Lists the command lines of processes that work in the test's directory."""

    def of() -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):  # it ended, or is another user's
                if process.name.isdecimal() and (process / "cwd").readlink().is_relative_to(tmp_path):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    return of


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait


@pytest.fixture
def infergate_demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `infergate demo` with options; all that it writes is in the test's directory."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "controller", "demo", *options],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()
