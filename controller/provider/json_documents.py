"""JSON text to values. A key that is there twice is refused, and so is what is JSON to Python only."""

import json
import re
from dataclasses import dataclass
from typing import Any

from controller.provider.json_lines import Place, line_where
from controller.provider.text import DEEPEST, Malformed, is_text
from controller.resources.scalars import Location, quoted

_SPACE = re.compile(r"[ \t\r\n]*")
_CONSTANTS = ("NaN", "Infinity", "-Infinity")
_DIGITS = "-0123456789"
_LONGEST_NUMBER = 4300  # digits, the limit of Python's int


@dataclass(frozen=True)
class JsonValue:
    """One of the values in a text."""

    value: Any  # of any shape until it is validated
    start: int
    """Offset in the text."""
    line: int
    """0-based."""


def load_json(text: str) -> list[JsonValue]:
    """Each JSON value in a text.

    Raises Malformed when it is not JSON, or has a key twice.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins, parse_constant=_no_constant)
    values: list[JsonValue] = []
    position = _after_space(text, 0)
    while position < len(text):
        line = text.count("\n", 0, position)
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise Malformed(f"not JSON: {error.msg[0].lower()}{error.msg[1:]}", error.lineno - 1) from error
        except RecursionError as error:
            raise Malformed(f"nested too deeply, accepted are {DEEPEST} levels", line) from error
        except ValueError as error:  # of two functions below, or a number of thousands of digits
            raise Malformed(f"not JSON: {error}", line_where(text, position, _Refused())) from error
        if (problem := _problem(value)) is not None:
            raise Malformed(problem, line_where(text, position, _is_no_text))
        values.append(JsonValue(value, position, line))
        position = _after_space(text, end)
    return values


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: as above
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None, on purpose
        raise ValueError(f"key {quoted(twin)} is there twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"found {name}, accepted is a number")


class _Refused:
    """Holds for what a ValueError is raised for: a key that was there, a constant, a long number."""

    def __init__(self) -> None:
        self._seen: set[Location] = set()

    def __call__(self, place: Place) -> bool:
        if place.is_key:
            is_twin = place.location in self._seen
            self._seen.add(place.location)
            return is_twin
        return place.token in _CONSTANTS or (place.token[:1] in _DIGITS and len(place.token) > _LONGEST_NUMBER)


def _is_no_text(place: Place) -> bool:
    return place.token.startswith('"') and not is_text(str(json.loads(place.token)))


def _problem(value: Any) -> str | None:  # Any: as above
    """What is wrong with the depth, or with a string that no other program could read."""
    waiting: list[tuple[Any, int]] = [(value, 1)]  # Any: as above
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict):
            waiting += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, list):
            waiting += [(each, depth + 1) for each in item]
        elif isinstance(item, str):
            if not is_text(item):
                return "a string holds NUL or half a surrogate pair"
            continue
        if depth > DEEPEST and isinstance(item, dict | list):
            return f"nested too deeply, accepted are {DEEPEST} levels"
    return None
