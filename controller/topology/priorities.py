"""Annotations of a route that say how important its requests to InferencePools are.

Gateway API has no field for it, and a filter of our own would make a route unfit for other gateways. A mistake is a
condition, and what it was meant for has no effect; the rest of the annotations, and of the route, has.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.ir.types import NO_PRIORITY, Priority
from controller.resources.grpc_route import RequestRoute
from controller.resources.scalars import quoted
from controller.topology.conditions import Condition, invalid_annotations

_PREFIX: Final = "infergate.dev/priority"
_FIELDS: Final = {_PREFIX: "fixed", f"{_PREFIX}-cap": "cap", f"{_PREFIX}-default": "default"}
"""Fields of `Priority` by annotation."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_INT32: Final = 2**31
_ACCEPTED: Final = "accepted is an integer of 32 bits for all rules, or RULE=INTEGER, RULE=INTEGER by the rules' names"


@dataclass(frozen=True)
class Priorities:
    """What the annotations of a route come to."""

    by_rule: tuple[Priority, ...]
    """In the order of the rules."""
    invalid: Condition | None
    """What is wrong with them; None when nothing is."""


def priorities_of(route: RequestRoute) -> Priorities:
    """The priorities of the rules of a route."""
    annotations = {
        name: value for name, value in sorted(route.metadata.annotations.items()) if name.startswith(_PREFIX)
    }
    if not annotations:
        return Priorities((NO_PRIORITY,) * len(route.spec.rules), None)
    names = [rule.name for rule in route.spec.rules]
    found = [NO_PRIORITY] * len(names)
    problems: list[str] = []
    for annotation, text in annotations.items():
        field = _FIELDS.get(annotation)
        if field is None:
            problems.append(f"metadata.annotations: found {annotation}, accepted is {' or '.join(_FIELDS)}")
            continue
        numbers, wrong = _read(text, names=names)
        problems += [f"metadata.annotations[{annotation}]: {message}" for message in wrong]
        for index, number in numbers.items():
            found[index] = replace(found[index], **{field: number})
    return Priorities(tuple(found), invalid_annotations(problems))


def _read(text: str, *, names: Sequence[str | None]) -> tuple[Mapping[int, int], list[str]]:
    """Numbers by the position of their rule, and what is wrong with the others."""
    whole = _number(text)
    if whole is not None:
        return dict.fromkeys(range(len(names)), whole), []
    numbers: dict[int, int] = {}
    problems: list[str] = []
    for item in text.split(","):
        name, equals, written = (part.strip() for part in item.partition("="))
        number = _number(written)
        places = [index for index, known in enumerate(names) if known is not None and known == name]
        if not equals or number is None:
            problems.append(f"found {quoted(item.strip())}, {_ACCEPTED}")
        elif not places:
            problems.append(f"found {quoted(item.strip())}, {_rules(names)}")
        elif numbers.keys() & set(places):
            problems.append(f"found {quoted(item.strip())}, rule {name} has a number already, which stays")
        else:
            numbers.update(dict.fromkeys(places, number))
    return numbers, problems


def _rules(names: Sequence[str | None]) -> str:
    known = ", ".join(sorted(_named(names)))
    return f"the route has the rules {known}" if known else "the route has no rule with a name"


def _named(names: Sequence[str | None]) -> Iterator[str]:
    yield from {name for name in names if name}


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text.strip()):
        return None
    number = int(text)
    return number if -_INT32 <= number < _INT32 else None
