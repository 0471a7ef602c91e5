"""Each suite of `tests/nginx` runs with both kinds of pickers, or is left out with a reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nginx.both_ends.left_out import SUITES, TESTS

HERE = Path(__file__).parent


def _suites() -> set[str]:
    return {path.stem.removeprefix("test_") for path in HERE.parent.glob("test_*.py")}


def _run_here() -> Iterator[str]:
    for path in HERE.glob("test_*.py"):
        if f"from tests.nginx.{path.stem} import *" in path.read_text():
            yield path.stem.removeprefix("test_")


def test_every_suite_is_run_here_or_left_out() -> None:
    here = set(_run_here())
    assert not here & SUITES.keys()
    assert _suites() == here | SUITES.keys()


@pytest.mark.parametrize("module", sorted(TESTS))
def test_what_is_left_out_is_there(module: str) -> None:
    text = (HERE.parent / f"{module}.py").read_text()
    assert (HERE / f"{module}.py").exists()
    missing = [name for name in TESTS[module] if f"def {name.partition('[')[0]}(" not in text]
    assert missing == []
