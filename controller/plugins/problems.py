"""What is wrong with a configuration of the picker, in words a user can act on.

The wording is that of `controller.resources.problems`, which this package may not import: the picker imports this one.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.validation import ACCEPTED, Words, details_of, fields_at

Location = tuple[str | int, ...]
"""Path of a value: names of fields and indexes of items."""

_LONGEST: Final = 80
"""Characters of a value that are shown."""


class Broken(ValueError):
    """A rule does not hold, at a place below the value that is validated."""

    def __init__(self, message: str, *location: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.location: Location = location


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    location: Location
    """Empty when the whole configuration is meant."""
    message: str

    @property
    def field(self) -> str:
        """The location as Kubernetes writes it, such as `plugins[0].parameters.threshold`."""
        path = ""
        for part in self.location:
            if isinstance(part, int):
                path += f"[{part}]"
            else:
                name = part[:_LONGEST] if part.isprintable() else quoted(part)
                path += f".{name}" if path else name
        return path

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.location else self.message

    def below(self, *location: str | int) -> "Problem":
        """The same problem of a value that stands at `location`."""
        return Problem((*location, *self.location), self.message)


def problems_of(error: ValidationError, *, model: type[BaseModel]) -> tuple[Problem, ...]:
    """What the validation of a model found, in the order of its fields."""
    return tuple(_problem(item, model=model) for item in details_of(error))


def quoted(value: object) -> str:
    """A value as it is shown in a message: in one line, and cut when it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set | frozenset):
        return "a list"
    text = str(value)
    if isinstance(value, str):
        text = f'"{text}"' if text.isprintable() and '"' not in text else '"' + ascii(text)[1:-1] + '"'
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def near(name: str, accepted: Iterable[str]) -> str:
    """`did you mean …? ` or nothing; ends with a space."""
    close = difflib.get_close_matches(name[:64], list(accepted), n=2, cutoff=0.7)
    return f"did you mean {' or '.join(close)}? " if close else ""


def _problem(item: ErrorDetails, *, model: type[BaseModel]) -> Problem:
    location = tuple(item["loc"])
    context = item.get("ctx", {})
    if item["type"] == "missing":
        return Problem(location, "missing, it is required")
    if item["type"] == "extra_forbidden":
        return Problem(location, _unknown(str(location[-1]), fields_at(model, location[:-1])))
    broken = context.get("error")
    if isinstance(broken, Broken):
        return Problem((*location, *broken.location), broken.message)
    if item["type"] == "value_error":
        return Problem(location, str(broken))
    words = _ACCEPTED.get(item["type"])
    accepted = words(context) if words else item["msg"]
    found = str(context["actual_length"]) if item["type"] in ("too_short", "too_long") else quoted(item["input"])
    return Problem(location, f"found {found}, accepted is {accepted}")


def _unknown(name: str, fields: list[str]) -> str:
    if not fields:
        return "unknown field, there are none here"
    return f"unknown field, {near(name, fields)}there are: {', '.join(sorted(fields))}"


_ACCEPTED: Final[Words] = {
    **ACCEPTED,
    "float_type": lambda _: "a number, without quotes",
    "finite_number": lambda _: "a finite number",
    "model_attributes_type": lambda _: "a mapping",
    "string_too_short": lambda context: f"text of at least {context['min_length']} characters",
    "string_too_long": lambda context: f"text of at most {context['max_length']} characters",
    "too_short": lambda context: f"at least {context['min_length']} items",
    "too_long": lambda context: f"at most {context['max_length']} items",
    "greater_than": lambda context: f"a number above {context['gt']:g}",
    "greater_than_equal": lambda context: f"a number of at least {context['ge']:g}",
    "less_than": lambda context: f"a number below {context['lt']:g}",
    "less_than_equal": lambda context: f"a number of at most {context['le']:g}",
}
