from pathlib import Path

import pytest

from controller.agent.state import locked, replace_file
from controller.errors import StateUnusable


def test_second_user_of_a_state_directory_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StateUnusable, match="used by another process"), locked(tmp_path):
        pass


def test_state_directory_is_free_after_its_user_has_gone(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with locked(tmp_path) as state:
        assert state.run.is_dir()


def test_state_directory_that_cannot_be_made_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match="cannot be written"), locked(tmp_path / "file" / "state"):
        pass


def test_replaced_file_leaves_no_draft(tmp_path: Path) -> None:
    replace_file(tmp_path / "pools.json", b"one")
    replace_file(tmp_path / "pools.json", b"two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"pools.json": b"two"}
