"""The file of ended requests, followed while it grows."""

import os
from pathlib import Path

import pytest

from controller.picker import completions_file
from controller.picker.completions_file import CompletionsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "completions.log"


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_lines_are_read_once_and_whole(path: Path) -> None:
    file = CompletionsFile(path)
    assert file.read() == b""
    append(path, b"one\ntwo\nth")
    assert file.read() == b"one\ntwo\n"
    assert file.read() == b""
    append(path, b"ree\n")
    assert file.read() == b"three\n"


def test_what_was_there_before_is_not_read(path: Path) -> None:
    append(path, b"of another picker\n")
    file = CompletionsFile(path)
    assert file.read() == b""
    append(path, b"mine\n")
    assert file.read() == b"mine\n"


def test_file_that_is_put_in_its_place_is_read_from_its_start(path: Path) -> None:
    file = CompletionsFile(path)
    file.read()
    append(path, b"one\n")
    assert file.read() == b"one\n"
    path.unlink()
    append(path, b"two\n")
    assert b"".join(file.read() for _ in range(3)) == b"two\n"


def test_file_that_is_cut_is_read_from_its_start(path: Path) -> None:
    file = CompletionsFile(path)
    file.read()
    append(path, b"a long line\n")
    file.read()
    os.truncate(path, 0)
    append(path, b"two\n")
    assert b"".join(file.read() for _ in range(2)) == b"two\n"


@pytest.mark.parametrize("can_punch", [True, False])
def test_what_was_read_takes_no_room_and_no_line_is_lost(
    path: Path, can_punch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_punch:
        monkeypatch.setattr(completions_file, "_punch_hole", lambda file, **where: False)
    file = CompletionsFile(path)
    file.read()
    lines = b"".join(b"%099d\n" % number for number in range(5000))
    for _ in range(40):
        append(path, lines)
        assert file.read() == lines
    assert path.stat().st_blocks * 512 <= completions_file.FREED_EVERY + len(lines)
