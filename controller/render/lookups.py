"""Maps that find a rule by exact values, however many there are: the key of a line is the place and the values.

nginx looks keys up in a hash table, without regard to case. Values are compared with regard to case, so a key is asked
for only with values that have no capital letter, and holds none: of what a client sends, anything else becomes a value
that no key has. A parameter that is written in a way that nginx does not read as the specification wants becomes `%`,
and for that value the key leads to expressions, which look at the whole query.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ir.types import Match, PathKind, Rule
from controller.render.maps import NO_CHOICE, Place, describe, digest, header_variable
from controller.render.quoting import expression, literal

ODD: Final = "%"
"""Stands for the value of a parameter that takes a look at the whole query."""
_LONGEST: Final = 120
"""Bytes of values. Three such keys fit into a bucket of the size in the settings; of 10,000, no four have to."""
_VALUE: Final = re.compile(r"[^A-Z\x00-\x1f\x7f]+")
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_PARAMETER_VALUE: Final = re.compile(r"(?:(?![A-Z&+%])[!-~])+")
"""What stands in a query as it is: other bytes must be encoded, and are looked for by expressions."""


@dataclass(frozen=True, order=True)
class Mask:
    """What a case asks for, all of it by exact values."""

    has_method: bool
    headers: tuple[str, ...]
    """Sorted."""
    parameter: str
    """Empty: none."""

    @property
    def source(self) -> str:
        variables = ["$infergate_place"]
        variables += ["$request_method"] if self.has_method else []
        variables += [exact_header(name).variable for name in self.headers]
        variables += [exact_parameter(self.parameter).variable] if self.parameter else []
        return expression("\\n".join(variables))

    def values(self, match: Match) -> tuple[str, ...]:
        """What a match of this mask asks for, the parameter last."""
        exact = {item.name: item.value for item in match.headers}
        method = (match.method or "",) if self.has_method else ()
        return (*method, *(exact[name] for name in self.headers), *(item.value for item in match.query))


@dataclass(frozen=True, order=True)
class Exact:
    """A map from a header or a parameter to its value, as far as it can be a part of a key."""

    variable: str
    source: str
    """The variable that it looks at, with `$`."""
    value: str
    """The variable that holds the value."""
    otherwise: tuple[str, str]
    """(expression, what becomes of a value that is no part of a key)."""


@dataclass(frozen=True)
class Entry:
    """One line of a LookupMap."""

    rule: Rule
    key: str
    """Quoted."""
    summary: str
    """The match in words, for a reader."""
    asks: str = ""
    """The variable that tells what serves it; empty: the rule does."""


@dataclass(frozen=True)
class LookupMap:
    """A map from a place and exact values to what serves them."""

    variable: str
    source: str
    """Quoted nginx expression."""
    entries: tuple[Entry, ...]
    default: str = NO_CHOICE
    """What serves requests for which there is no line, or the variable that tells."""

    @property
    def users(self) -> tuple[str, ...]:
        """The routes among whose rules it chooses, for a reader and to trace a refusal."""
        return tuple(sorted({str(entry.rule.route) for entry in self.entries}))


def mask_of(match: Match) -> Mask | None:
    """None where exact values alone do not decide, or a key cannot hold them."""
    named = (*match.headers, *match.query)
    if match.path.kind is PathKind.REGEX or len(match.query) > 1 or any(item.is_regex for item in named):
        return None
    if not all(_VALUE.fullmatch(item.value) for item in match.headers):
        return None
    for item in match.query:
        if not _PARAMETER_NAME.fullmatch(item.name) or not _PARAMETER_VALUE.fullmatch(item.value):
            return None
    if sum(len(item.value.encode("utf-8", "surrogateescape")) + 1 for item in named) > _LONGEST:
        return None
    return Mask(
        has_method=match.method is not None,
        headers=tuple(sorted(item.name for item in match.headers)),
        parameter=match.query[0].name if match.query else "",
    )


def lookup_map(
    mask: Mask, places: Iterable[Place], *, variable: str, default: str = NO_CHOICE, odd: str = ""
) -> LookupMap:
    """Finds the cases of places, which have this mask. `odd` is the variable that tells about odd queries."""
    entries: dict[tuple[str, ...], Entry] = {}
    for place in places:
        for case in place.cases:
            values = mask.values(case.match)
            made = Entry(rule=case.rule, key=_key(place, values), summary=describe(case.match))
            entries.setdefault((place.id, *values), made)  # of equals the first holds
            if mask.parameter:
                values = (*values[:-1], ODD)
                made = Entry(case.rule, _key(place, values), f"?{mask.parameter} in another way", asks=odd)
                entries.setdefault((place.id, *values), made)
    return LookupMap(variable=variable, source=mask.source, entries=tuple(entries.values()), default=default)


def _key(place: Place, values: Sequence[str]) -> str:
    return expression("\\n".join((place.id, *(literal(value)[1:-1] for value in values))))


def exact_header(name: str) -> Exact:
    source = header_variable(name)
    return Exact(f"$exact_{digest(source)}", source, source, ("[A-Z]", ""))


def exact_parameter(name: str) -> Exact:
    """Its first value. nginx reads names without regard to case, skips one without a value, and decodes nothing."""
    other_name = rf"[^=&]*[%+]|(?!{name}=)(?i:{name})(?:[=&]|\z)"
    odd = rf"(?:^|&)(?:{other_name}|{name}=[^&]*[%+A-Z])"
    return Exact(f"$exact_{digest('?' + name)}", "$args", f"$arg_{name}", (odd, ODD))


def exacts_of(masks: Iterable[Mask]) -> tuple[Exact, ...]:
    """What the keys of these masks are made of, sorted."""
    found: Mapping[Exact, None] = {
        item: None
        for mask in masks
        for item in (
            *(exact_header(name) for name in mask.headers),
            *([exact_parameter(mask.parameter)] if mask.parameter else []),
        )
    }
    return tuple(sorted(found))
