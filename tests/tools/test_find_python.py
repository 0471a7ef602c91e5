"""`tools/find_python.sh` against programs that answer as Pythons of several kinds do."""

import subprocess
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "tools" / "find_python.sh"


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A directory of programs: what each is asked for has a word in it that says which question it is."""
    for name, serves, compiles in (
        ("without-venv", 1, 0),
        ("without-headers", 0, 1),
        ("whole", 0, 0),
        ("whole-too", 0, 0),
    ):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit {serves};; *Python.h*) exit {compiles};; esac\n')
        program.chmod(0o755)
    return tmp_path


def _find(*candidates: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(_SCRIPT), *map(str, candidates)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("candidates", "found"),
    [
        (("whole", "whole-too"), "whole"),
        (("without-venv", "whole"), "whole"),
        (("missing", "whole"), "whole"),
        # One that hot paths can be compiled for is worth more than one of the system that lacks its headers.
        (("without-headers", "whole"), "whole"),
        (("without-headers", "without-venv", "missing"), "without-headers"),
    ],
)
def test_the_first_that_serves_is_found(pythons: Path, candidates: tuple[str, ...], found: str) -> None:
    done = _find(*(pythons / name for name in candidates))
    assert (done.returncode, done.stdout) == (0, f"{pythons / found}\n")


def test_none_is_an_error_that_says_what_is_needed(pythons: Path) -> None:
    done = _find(pythons / "without-venv", pythons / "missing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Python 3.11 or newer" in done.stderr


def test_this_machine_has_one() -> None:
    found = _find()
    assert found.returncode == 0, found.stderr
    asked = [found.stdout.strip(), "-c", "import sys; print(sys.version_info >= (3, 11))"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "True\n"
