"""`python -m tools.compile`: makes the compiled form of the modules of the hot paths that have none yet.

Each module becomes a binary of its own, named for its source (see `controller/compiled.py`), first elsewhere and then
moved to its place, so that a process that starts meanwhile finds it whole or not at all. What was made of former
sources is removed.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from controller.compiled import DIRECTIVES, DIRECTORY, MODULES, binary_of, source_of

_ROOT: Final = Path(__file__).parent.parent
_AT_ONCE: Final = 2
_FLAGS: Final = ("-O2", "-g0", "-s", "-w", "-DNDEBUG", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-shared")
"""-O3 is 8% larger and no faster, -O1 takes half the time and is 4% slower. -fwrapv is how Python itself is built."""


class CannotCompile(Exception):
    """A module did not become a binary, or there is nothing to make it with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a module cannot be compiled; 0 also without the means, but for `--required`."""
    parser = argparse.ArgumentParser(prog="python -m tools.compile", description="Compile modules of the hot paths.")
    parser.add_argument("--required", action="store_true", help="fail without Cython or a C compiler")
    chosen = parser.parse_args(arguments)
    if lacking := what_is_lacking():
        print(f"Nothing is compiled, and the sources serve as well: {lacking}.", file=sys.stderr)
        return 1 if chosen.required else 0
    began = time.monotonic()
    try:
        made = compile_missing(MODULES, DIRECTORY)
    except CannotCompile as problem:
        print(problem, file=sys.stderr)
        return 1
    size = sum(binary_of(module).stat().st_size for module in MODULES) / 1e6
    print(f"{len(made)} of {len(MODULES)} modules compiled in {time.monotonic() - began:.0f} s; all are {size:.1f} MB.")
    return 0


def what_is_lacking() -> str:
    """Why nothing can be compiled here; empty where it can."""
    if find_spec("Cython") is None:
        return "there is no Cython"
    if shutil.which(_compiler()[0]) is None:
        return f"there is no C compiler {_compiler()[0]}"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "there are no headers of Python"
    return ""


def compile_missing(modules: Sequence[str], directory: Path) -> tuple[str, ...]:
    """Compile what has no binary of its source in a directory, and remove what is of former ones.

    Returns the modules that were compiled. Raises CannotCompile.
    """
    directory.mkdir(exist_ok=True)
    wanted = {module: binary_of(module, directory) for module in modules}
    missing = tuple(module for module, binary in wanted.items() if not binary.exists())
    with tempfile.TemporaryDirectory(dir=directory) as work, ThreadPoolExecutor(_AT_ONCE) as pool:
        done = [pool.submit(_compile, module, wanted[module], work=Path(work)) for module in missing]
        for one in done:
            one.result()
    for binary in directory.glob("*-*.*"):
        if binary not in wanted.values():
            binary.unlink()
    return missing


def _compile(module: str, binary: Path, *, work: Path) -> None:
    written, made = work / f"{module}.c", work / binary.name
    directives = (part for name, value in DIRECTIVES.items() for part in ("-X", f"{name}={value}"))
    # The path of the source stands in tracebacks as it is given here.
    source = str(source_of(module).relative_to(_ROOT))
    _run(sys.executable, "-m", "cython", *directives, "--module-name", module, "-o", str(written), source)
    _run(*_compiler(), *_FLAGS, f"-I{sysconfig.get_path('include')}", str(written), "-o", str(made))
    written.unlink()
    made.rename(binary)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCompile(f"{shlex.join(command)}\n{done.stdout}{done.stderr}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
