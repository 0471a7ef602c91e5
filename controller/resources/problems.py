"""What is wrong with a document, in words a user can act on: what was found, and what would be accepted."""

import difflib
import re
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.resources.scalars import WORDS, Broken, Location, quoted
from controller.validation import ACCEPTED, Words, details_of, fields_at

_MOST = 20  # problems of one document that are told: more do not help to repair it

_LONGEST = 200  # characters of a field's path; the longest of the Gateway API has about 90


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a document."""

    location: Location
    """Empty when the whole document is meant."""
    message: str

    @property
    def field(self) -> str:
        """The location as Kubernetes writes it, such as `spec.rules[0].backendRefs[1].port`."""
        return field_path(self.location)


def problems(error: ValidationError, *, model: type[BaseModel], secret: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    """What a failed validation found, in the order of the model's fields, at most 20.

    secret: top-level fields whose values are never shown.
    """
    found = [
        _problem(item, model=model, hidden=bool(item["loc"]) and item["loc"][0] in secret) for item in details_of(error)
    ]
    if len(found) > _MOST:
        found[_MOST:] = [Problem((), f"{len(found) - _MOST} more problems in this document")]
    return tuple(found)


def field_path(location: Location) -> str:
    """A location as Kubernetes writes it; long names are cut, and so is what is nested beyond reason."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch("[A-Za-z_][A-Za-z0-9_-]{0,63}", part):
            path += f".{part}" if path else part
        else:
            name = part if len(part) <= 64 and part.isprintable() else quoted(part, limit=32)
            path += f"[{name}]"
    return path if len(path) <= _LONGEST else f"{path[:_LONGEST]}…"


def near(name: str, accepted: list[str], *, likeness: float = 0.65) -> str:
    """`did you mean …`, or the accepted names when few, or nothing."""
    close = difflib.get_close_matches(name[:64], accepted, n=2, cutoff=likeness)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"accepted: {', '.join(sorted(accepted))}" if 0 < len(accepted) <= 12 else ""


def _problem(item: ErrorDetails, *, model: type[BaseModel], hidden: bool) -> Problem:
    location = item["loc"]
    context = item.get("ctx", {})
    broken = context.get("error")
    if isinstance(broken, Broken):
        return Problem((*location, *broken.location), broken.message)
    if item["type"] == "missing":
        return Problem(location, "missing, it is required")
    if item["type"] == "extra_forbidden":
        hint = near(str(location[-1]), fields_at(model, location[:-1]))
        return Problem(location, f"unknown field{', ' if hint else ''}{hint}")
    words = _ACCEPTED.get(item["type"])
    accepted = words(context) if words else "something else"
    found = "something else" if hidden else quoted(item["input"])
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        accepted += ", so put it in quotes"
    if item["type"] in ("too_short", "too_long"):
        found = str(context["actual_length"])
    return Problem(location, f"found {found}, accepted is {accepted}")


_TIME = "a time such as 2025-01-31T12:00:00Z"

_ACCEPTED: Words = {
    **ACCEPTED,
    "string_unicode": lambda _: "text in Unicode",
    "invalid_key": lambda _: "a key of text",
    "string_pattern_mismatch": lambda context: WORDS.get(context["pattern"], f"text that matches {context['pattern']}"),
    "string_too_short": lambda context: f"text of at least {_count(context['min_length'], 'character')}",
    "string_too_long": lambda context: f"text of at most {_count(context['max_length'], 'character')}",
    "too_short": lambda context: f"at least {_count(context['min_length'], 'item')}",
    "too_long": lambda context: f"at most {_count(context['max_length'], 'item')}",
    "greater_than_equal": lambda context: f"a number of at least {context['ge']}",
    "less_than_equal": lambda context: f"a number of at most {context['le']}",
    "datetime_type": lambda _: _TIME,
    "datetime_parsing": lambda _: _TIME,
    "datetime_from_date_parsing": lambda _: _TIME,
    "timezone_aware": lambda _: f"{_TIME}, with its time zone",
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
