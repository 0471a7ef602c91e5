"""What the program does with an output that does not take what it writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_INFERGATE = [sys.executable, "-m", "controller"]
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Resources whose first line has a letter that not every encoding knows, in a file whose name is no UTF-8."""
    directory = tmp_path / "resources"
    directory.mkdir()
    (directory / os.fsdecode(b"caf\xe9.yaml")).write_text("é\n")
    return directory


@pytest.mark.parametrize("arguments", [("--help",), ("check", "--no-test"), ("check", "--no-test", "-o", "yaml")])
def test_a_reader_that_leaves_early_is_no_error(arguments: tuple[str, ...], directory: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    resources = [str(directory)] if "check" in arguments else []
    try:
        command = [*_INFERGATE, *arguments, *resources]
        done = subprocess.run(command, env=_ENVIRONMENT, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_name_that_is_no_text_is_shown_escaped(encoding: str, directory: Path) -> None:
    done = subprocess.run(
        [*_INFERGATE, "check", "--no-test", str(directory)],
        env=_ENVIRONMENT | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        encoding=encoding.split(":")[0],
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert r"caf\udce9.yaml" in done.stdout
