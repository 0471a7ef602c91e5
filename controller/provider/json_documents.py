"""JSON text to values. A key that is there twice is refused, and so is what is JSON to Python only."""

import json
import re
from typing import Any

from controller.provider.text import DEEPEST, Malformed, is_text
from controller.resources.scalars import quoted

_SPACE = re.compile(r"[ \t\r\n]*")


def load_json(text: str) -> list[tuple[Any, int]]:  # Any: of any shape until it is validated
    """Value and 0-based line of each JSON value in a text.

    Raises Malformed when it is not JSON, or has a key twice.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins, parse_constant=_no_constant)
    values: list[tuple[Any, int]] = []
    position = _after_space(text, 0)
    while position < len(text):
        line = text.count("\n", 0, position)
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise Malformed(f"not JSON: {error.msg[0].lower()}{error.msg[1:]}", error.lineno - 1) from error
        except RecursionError as error:
            raise Malformed(f"nested too deeply, accepted are {DEEPEST} levels", line) from error
        except ValueError as error:  # of the two functions below, or a number of thousands of digits
            raise Malformed(f"not JSON: {error}", line) from error
        _check(value, line=line)
        values.append((value, line))
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


def _check(value: Any, *, line: int) -> None:  # Any: as above
    """Raises Malformed for depth, and for strings that no other program could read."""
    waiting: list[tuple[Any, int]] = [(value, 1)]  # Any: as above
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, dict):
            waiting += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, list):
            waiting += [(each, depth + 1) for each in item]
        elif isinstance(item, str):
            if not is_text(item):
                raise Malformed("a string holds NUL or half a surrogate pair", line)
            continue
        if depth > DEEPEST and isinstance(item, dict | list):
            raise Malformed(f"nested too deeply, accepted are {DEEPEST} levels", line)
