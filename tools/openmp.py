"""Brings the runtime of OpenMP, which the demo's llama.cpp server needs, where the machine lacks it.

The server's wheel counts on the system's. Wheels of other packages bring one, under a name of their own: it is taken
from that of scikit-learn, which is made for every Python and processor, and nothing else of it is kept.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

from controller.demo.openmp import LIBRARY, OURS, is_in_system

_WHEEL: Final = "scikit-learn>=1.5"
_IN_WHEEL: Final = "*.libs/libgomp-*.so*"


def main() -> int:
    if is_in_system() or (OURS / LIBRARY).is_file():
        return 0
    print("Taking the runtime of OpenMP, which this machine lacks, from a wheel (some 10 MB, once) ...", flush=True)
    with TemporaryDirectory() as directory:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        code = subprocess.run([*download, "--only-binary=:all:", "--dest", directory, _WHEEL], check=False).returncode
        for wheel in Path(directory).glob("*.whl"):
            take(wheel, OURS)
    return code


def take(wheel: Path, directory: Path) -> None:
    """Writes the wheel's runtime into the directory, by the name that programs look for."""
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / f".{LIBRARY}.draft"
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if Path(name).match(_IN_WHEEL))
        draft.write_bytes(archive.read(name))
    draft.replace(directory / LIBRARY)


if __name__ == "__main__":
    sys.exit(main())
