"""The Jinja environment of the templates, and where the files lie that travel with the program."""

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from controller.render import quoting

_LONGEST_REASON = 256
"""Characters. With each one escaped for JSON and for nginx it fits a parameter of nginx.conf, 4,096 bytes."""


def files_directory() -> Path:
    """The directory that holds `templates/` and `nginx/`: inside an installed package, else the project's root."""
    installed = Path(__file__).parent.parent / "_files"
    return installed if installed.is_dir() else Path(__file__).parent.parent.parent


@cache
def environment() -> Environment:
    """Templates with the quoting functions as filters. An undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(files_directory() / "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        text=quoting.text, literal=quoting.literal, regex=quoting.regex, comment=quoting.comment, json_text=_json_text
    )
    made.filters["milliseconds"] = _milliseconds
    made.filters["map_key"] = quoting.map_key
    return made


def _milliseconds(seconds: float) -> str:
    """A time as nginx writes it; at least one millisecond, since 0 means something else in many directives."""
    return f"{max(1, round(seconds * 1000))}ms"


def _json_text(reason: str) -> str:
    """What stands between the quotes of a string in JSON."""
    message = reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 3] + "..."
    return json.dumps(message)[1:-1]
