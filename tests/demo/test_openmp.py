"""The runtime of OpenMP on machines with and without it, played by a library that no machine has."""

import _ctypes
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from controller.demo import openmp
from controller.demo.servers import ModelServerFailed, model_file
from tools.openmp import take

_NOWHERE = "libinfergate-test.so.1"
_LOAD = (sys.executable, "-c", f"import ctypes; ctypes.CDLL({_NOWHERE!r})")


def test_a_machine_with_the_runtime_uses_its_own(tmp_path: Path) -> None:
    assert openmp.prefix(library="libc.so.6", ours=tmp_path) == ()


def test_a_machine_without_the_runtime_is_given_ours(tmp_path: Path) -> None:
    assert openmp.prefix(library=_NOWHERE, ours=tmp_path) is None
    shutil.copy(_ctypes.__file__, tmp_path / _NOWHERE)
    prefix = openmp.prefix(library=_NOWHERE, ours=tmp_path)
    assert prefix is not None
    assert subprocess.run(_LOAD, check=False, capture_output=True).returncode != 0
    assert subprocess.run([*prefix, *_LOAD], check=False).returncode == 0


def test_what_a_user_lets_programs_search_is_searched_as_well(tmp_path: Path) -> None:
    (tmp_path / _NOWHERE).touch()
    prefix = openmp.prefix(library=_NOWHERE, ours=tmp_path, environment={"LD_LIBRARY_PATH": "/mine"})
    assert prefix == ("env", f"LD_LIBRARY_PATH={tmp_path}:/mine")


def test_no_runtime_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(openmp, "prefix", lambda: None)
    with pytest.raises(ModelServerFailed, match=r"libgomp\.so\.1\) is not installed; `make demo` installs it"):
        model_file()


def test_the_runtime_is_taken_from_a_wheel_by_the_name_that_is_searched(tmp_path: Path) -> None:
    wheel, directory = tmp_path / "some.whl", tmp_path / "lib" / "openmp"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("sklearn/__init__.py", "")
        archive.writestr("scikit_learn.libs/libgomp-e985bcbb.so.1.0.0", b"library")
    take(wheel, directory)
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == {"libgomp.so.1": b"library"}
