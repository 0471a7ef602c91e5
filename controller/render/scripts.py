"""Which njs modules a configuration needs: those that something rendered names.

Each has a file in `nginx/scripts/` that imports it and declares its variables. A request that meets a script gets a
machine of its own, made anew with everything that is imported, so what nobody names is not imported.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from controller.render.environment import files_directory

_DECLARED: Final = re.compile(r"^js_import (\w+) |^js_set \$(\w+) ", re.MULTILINE)


def needed_scripts(rendered: Iterable[bytes]) -> tuple[str, ...]:
    """Names of the files in `scripts/` that rendered files need, by what these and the static files they include say.

    Sorted. A name that stands in a text of a user may have a script imported that is not needed.
    """
    files = tuple(rendered)
    return tuple(
        script for script, names in _names().items() if any(name in content for content in files for name in names)
    )


@cache
def _names() -> Mapping[str, tuple[bytes, ...]]:
    """By script: what names it in a file."""
    root = files_directory() / "nginx"
    included = {path.name: _without_comments(path.read_text()) for path in sorted(root.glob("proxy/*.conf"))}
    found = {}
    for path in sorted(root.glob("scripts/*.conf")):
        declared = _DECLARED.findall(path.read_text())
        names = {f" {module}." if module else variable for module, variable in declared}
        found[path.stem] = tuple(name.encode() for name in sorted(_with_includes(names, included)))
    return found


def _with_includes(names: set[str], included: Mapping[str, str]) -> set[str]:
    """Names, and the inclusions of static files in which one of them stands, or the inclusion of such a file."""
    while True:
        naming = {file for file, text in included.items() if any(name in text for name in names)}
        more = names | {f"include proxy/{file};" for file in naming}
        if more == names:
            return names
        names = more


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
