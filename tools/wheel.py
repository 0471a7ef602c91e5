"""The wheel with compiled modules: `INFERGATE_COMPILE=1 pip wheel .` needs a C compiler and makes one for its platform.

Without the variable the wheel holds the sources alone and serves everywhere.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE: Final = "INFERGATE_COMPILE"
_BINARIES: Final = "controller/_compiled"


class CompiledModules(BuildHookInterface[Any]):  # Any: the builder's configuration, of which nothing is read
    """See `BuildHookInterface`."""

    def dependencies(self) -> list[str]:
        """See `BuildHookInterface`."""
        return self.metadata.core.optional_dependencies["compile"] if _is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # Any: hatchling's own
        """Compile what is missing. Raises CalledProcessError where that cannot be done."""
        if version == "editable" or not _is_wanted():
            return
        subprocess.run((sys.executable, "-m", "tools.compile", "--required"), cwd=self.root, check=True)
        # The sources stand beside their binaries, which name them by digest.
        build_data["force_include"] |= {str(Path(self.root, _BINARIES)): _BINARIES}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _is_wanted() -> bool:
    return os.environ.get(VARIABLE) == "1"
