"""Compiled modules stand in for their sources, and never for other ones."""

import inspect
import os
import shutil
import subprocess
import sys
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import pytest

from controller import compiled
from controller.picker import chunks
from tools.compile import compile_missing, what_is_lacking

MODULE = "controller.picker.chunks"
OTHER = "controller.picker.rates"
PROGRAM = f"""
import logging, os, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from controller import compiled
compiled.install(os.environ)
import {MODULE}, {OTHER}
compiled.tell(logging.getLogger(), "starts")
print(compiled.count())
"""


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the binary of one module."""
    if lacking := what_is_lacking():
        pytest.skip(f"needs what compiles: {lacking}")
    directory = tmp_path_factory.mktemp("binaries")
    assert compile_missing((MODULE,), directory) == (MODULE,)
    return directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources with a broken binary of each of two modules."""
    ignore = shutil.ignore_patterns("__pycache__", "_compiled")
    shutil.copytree(compiled.source_of(MODULE).parents[1], tmp_path / "controller", ignore=ignore)
    for module in (MODULE, OTHER):
        binary = tmp_path / "controller/_compiled" / compiled.binary_of(module).name
        binary.parent.mkdir(exist_ok=True)
        binary.write_bytes(b"no binary of this machine")
    return tmp_path


def _ran(tree: Path, **environment: str) -> tuple[str, str]:
    """What a program that imports both modules from a tree printed, and what it logged."""
    # Python of tests runs from this directory, which must not be found first.
    kept = {name: value for name, value in os.environ.items() if name != compiled.VARIABLE}
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM),
        capture_output=True,
        text=True,
        cwd=tree,
        env={**kept, "PYTHONPATH": str(tree), **environment},
        timeout=60,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def _loaded(directory: Path) -> ModuleType:
    spec = compiled.Finder(directory).find_spec(MODULE, None)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("module", compiled.MODULES)
def test_module_of_the_table_is_there(module: str) -> None:
    assert compiled.source_of(module).is_file()


def test_table_is_sorted_and_names_each_module_once() -> None:
    assert list(compiled.MODULES) == sorted(set(compiled.MODULES))


def test_binary_is_imported_and_does_the_same(binaries: Path) -> None:
    module = _loaded(binaries)
    text = b"user: What does a gateway do?\n" * 40
    assert compiled.is_compiled(module)
    assert not inspect.isfunction(module.chunk_hashes)
    assert module.chunk_hashes(text, root=7) == chunks.chunk_hashes(text, root=7)


def test_compiled_module_shows_its_source(binaries: Path) -> None:
    module = _loaded(binaries)
    assert module.__file__ == str(compiled.source_of(MODULE))
    assert inspect.getsource(module) == compiled.source_of(MODULE).read_text()
    assert inspect.signature(module.chunk_hashes, eval_str=True) == inspect.signature(chunks.chunk_hashes)


def test_binary_is_used_by_a_program(tree: Path, binaries: Path) -> None:
    (binary,) = binaries.iterdir()
    shutil.copy(binary, tree / "controller/_compiled")
    assert _ran(tree)[0] == "1/2"


def test_source_without_a_binary_is_imported(tmp_path: Path) -> None:
    assert compiled.Finder(tmp_path).find_spec(MODULE, None) is None


def test_other_modules_are_not_looked_for(tmp_path: Path) -> None:
    assert compiled.Finder(tmp_path).find_spec("controller.no_such_module", None) is None


def test_edited_source_is_imported(tree: Path) -> None:
    for module in (MODULE, OTHER):
        with (tree / module.replace(".", "/")).with_suffix(".py").open("a") as source:
            source.write("EDITED = True\n")
    assert _ran(tree) == ("0/2", "")


def test_broken_binaries_give_way_to_sources_with_one_warning(tree: Path) -> None:
    printed, logged = _ran(tree)
    assert printed == "0/2"
    assert logged == "WARNING compiled modules cannot be loaded\n"


def test_sources_are_imported_where_the_variable_says_so(tree: Path) -> None:
    assert _ran(tree, **{compiled.VARIABLE: "0"}) == ("0/2", "")


def test_binaries_of_former_sources_are_removed(binaries: Path, tmp_path: Path) -> None:
    kept, former = binaries / compiled.binary_of(MODULE).name, tmp_path / f"{MODULE}-0123456789abcdef.so"
    shutil.copy(kept, tmp_path)
    former.touch()
    assert compile_missing((MODULE,), tmp_path) == ()
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
