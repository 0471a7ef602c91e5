"""The runtime of OpenMP, which the llama.cpp server takes from the system, and which a small system lacks.

`tools/openmp.py` puts one in the virtual environment where that is so.
"""

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LIBRARY: Final = "libgomp.so.1"
OURS: Final = Path(sys.prefix) / "lib" / "openmp"
"""Directory for that of the virtual environment."""


def is_in_system(library: str = LIBRARY) -> bool:
    """Whether a program finds it by itself."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def prefix(
    *, library: str = LIBRARY, ours: Path = OURS, environment: Mapping[str, str] = os.environ
) -> tuple[str, ...] | None:
    """What a command begins with so that its program finds the runtime; None where there is none."""
    if is_in_system(library):
        return ()
    if not (ours / library).is_file():
        return None
    searched = (str(ours), environment.get("LD_LIBRARY_PATH", ""))
    return ("env", f"LD_LIBRARY_PATH={':'.join(filter(None, searched))}")
