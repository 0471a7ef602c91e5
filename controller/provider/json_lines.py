"""Where things stand in JSON text, which Python's own decoder does not tell."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.resources.scalars import Location

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_AHEAD = object()
"""Stands for a key that has not come."""


@dataclass(frozen=True)
class Place:
    """A key, an item of a list, or a plain value."""

    location: Location
    """Of the member or item."""
    line: int
    """0-based."""
    token: str
    """As it is written; the bracket of an item that is an object or a list."""
    is_key: bool
    end: int
    """Offset behind the token."""


def places(text: str, position: int) -> Iterator[Place]:
    """Of one value, as far as it is JSON, in their order; the last one is the end of the value."""
    line = text.count("\n", 0, position)
    path: list[object] = []
    for match in _TOKEN.finditer(text, position):
        token = match.group()
        line += text.count("\n", position, match.start())
        position = match.start()
        is_key = bool(path) and path[-1] is _AHEAD and token.startswith('"')
        if is_key:
            path[-1] = _text(token)
        if token in "]}":
            path.pop()
        elif token == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else _AHEAD
        elif token != ":":
            yield Place(_location(path), line, token, is_key, match.end())
        if token in "[{":
            path.append(0 if token == "[" else _AHEAD)
        elif not path and not is_key:
            yield Place((), line, token, False, match.end())
            return


def lines_of(text: str, position: int) -> dict[Location, int]:
    """0-based line of each field and item of the value that begins there."""
    lines: dict[Location, int] = {}
    for place in places(text, position):
        if place.location:
            lines.setdefault(place.location, place.line)
    return lines


def line_where(text: str, position: int, holds: Callable[[Place], bool]) -> int:
    """Line of the first place of a value for which something holds; without one, that of the value."""
    found = (place.line for place in places(text, position) if holds(place))
    return next(found, text.count("\n", 0, position))


def _location(path: list[object]) -> Location:
    return tuple(item for item in path if isinstance(item, str | int))


def _text(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return token
