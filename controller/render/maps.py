"""Maps that choose among the rules of a location by what the path does not decide.

A map has one source. Here it is one line for the place that asks, and one for each thing that some case asks for: the
method, headers, the query, a flag for each regular expression on these, and the path last. No client can put a newline
into any but the path, so an expression over the lines cannot be led astray. nginx tries the expressions of a map in
order, and exact strings before all of them and without regard to case; that is why there are expressions only. None has
a capture (CVE-2026-93479).

Each map costs nginx about a millisecond when it loads a configuration, whatever is in it, so places share maps: those
that ask for the same things, and at most some hundred choices together. An expression for another place fails at its
first characters.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controller.ir.types import Case, Location, Match, PathKind, PathMatch, Rule, ValueMatch, is_unconditional
from controller.render.quoting import expression

_ANY_LINE = r"[^\n]*\n"
NO_CHOICE = "$infergate_default"
"""What a location says of requests for which none of its cases holds."""
MODEL_HEADERS: Final[Mapping[str, str]] = {
    "x-gateway-base-model-name": "$infergate_base_model",
    "x-gateway-model-name": "$infergate_model",
}
"""Headers that the gateway computes from what a request asks for, whatever a client sends, with their variables."""


@dataclass(frozen=True, order=True)
class Flag:
    """A map that is `1` where a regular expression matches the whole of a variable, and empty elsewhere."""

    variable: str
    """Its name, with `$`."""
    source: str
    """The variable that it looks at, with `$`."""
    pattern: str


@dataclass(frozen=True)
class Choice:
    """One line of a RuleMap."""

    rule: Rule
    pattern: str
    summary: str
    """The match in words, for a reader."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class RuleMap:
    """A map from a place and what a request has, to what serves it. Its expressions are tried in order."""

    variable: str
    source: str
    """Quoted nginx expression."""
    choices: tuple[Choice, ...]
    default: str = NO_CHOICE
    """What serves requests for which no choice holds, or the variable that tells."""

    @property
    def users(self) -> tuple[str, ...]:
        """The routes among whose rules it chooses, for a reader and to trace a refusal."""
        return tuple(sorted({str(choice.rule.route) for choice in self.choices}))


@dataclass(frozen=True)
class Place:
    """What several locations that choose alike have in common: the first line of the source."""

    id: str
    cases: tuple[Case, ...]
    """Those with a condition."""

    @property
    def asks_for_model(self) -> bool:
        return any(item.name in MODEL_HEADERS for case in self.cases for item in case.match.headers)


def place_of(location: Location) -> Place | None:
    """What a location asks a map; None where its first case always holds, or there is none."""
    cases = tuple(case for case in location.cases if not is_unconditional(case.match))
    if not cases:
        return None
    content = repr([(case.rule.id, _conditions(case.match)) for case in cases])
    return Place(id=digest(content), cases=cases)


def rule_map(places: Iterable[Place], *, variable: str, default: str = NO_CHOICE) -> RuleMap:
    """A map of the cases of places, one expression each."""
    places = list(places)
    columns = columns_of(case for place in places for case in place.cases)
    choices = tuple(
        Choice(
            rule=case.rule,
            pattern=f"^{place.id}\\n{columns.pattern(case.match)}",
            summary=describe(case.match),
            flags=tuple(_flags(case.match)),
        )
        for place in places
        for case in place.cases
    )
    return RuleMap(variable=variable, source=columns.source, choices=choices, default=default)


def describe(match: Match) -> str:
    """A match in words: `POST /v1/chat x-tier=gold ?beta=1`; `~` stands before a regular expression."""
    path = {PathKind.EXACT: "={}", PathKind.PREFIX: "{}/", PathKind.REGEX: "~{}"}[match.path.kind]
    parts = [match.method or "", path.format(match.path.value)]
    parts += [f"{item.name}{'~' if item.is_regex else '='}{item.value}" for item in match.headers]
    parts += [f"?{item.name}{'~' if item.is_regex else '='}{item.value}" for item in match.query]
    return " ".join(part for part in parts if part)


def header_variable(name: str) -> str:
    """nginx's variable for a request header. Of the model there is only what the gateway itself says."""
    if name.lower() in MODEL_HEADERS:
        return MODEL_HEADERS[name.lower()]
    return "$http_" + name.lower().replace("-", "_")


@dataclass(frozen=True)
class Columns:
    """The lines of a source behind the place."""

    has_method: bool
    headers: tuple[str, ...]
    has_query: bool
    flags: tuple[Flag, ...]
    has_path: bool

    @property
    def source(self) -> str:
        variables = ["$infergate_place"]
        variables += ["$request_method"] if self.has_method else []
        variables += [header_variable(name) for name in self.headers]
        variables += ["$args"] if self.has_query else []
        variables += [flag.variable for flag in self.flags]
        lines = "".join(f"{variable}\\n" for variable in variables)
        return expression(lines + ("$uri" if self.has_path else ""))

    def pattern(self, match: Match) -> str:
        """An expression over the lines that holds where the match holds."""
        lines: list[str] = []
        if self.has_method:
            lines.append(re.escape(match.method) + r"\n" if match.method else _ANY_LINE)
        exact = {item.name: item.value for item in match.headers if not item.is_regex}
        lines += [re.escape(exact[name]) + r"\n" if name in exact else _ANY_LINE for name in self.headers]
        if self.has_query:
            lines.append("".join(_parameter(item) for item in match.query if not item.is_regex) + _ANY_LINE)
        raised = set(_flags(match))
        lines += [r"1\n" if flag in raised else _ANY_LINE for flag in self.flags]
        if _is_last_line(match.path):
            lines.append(rf"(?:{match.path.value})\z")
        while lines and lines[-1] == _ANY_LINE:
            lines.pop()
        return "".join(lines)


def columns_of(cases: Iterable[Case]) -> Columns:
    matches = [case.match for case in cases]
    return Columns(
        has_method=any(match.method for match in matches),
        headers=tuple(sorted({item.name for match in matches for item in match.headers if not item.is_regex})),
        has_query=any(not item.is_regex for match in matches for item in match.query),
        flags=tuple(sorted({flag for match in matches for flag in _flags(match)})),
        has_path=any(_is_last_line(match.path) for match in matches),
    )


def _is_last_line(path: PathMatch) -> bool:
    """Whether a path is matched as a part of the source. An anchor in its expression would mean the source's start."""
    return path.kind is PathKind.REGEX and "^" not in path.value and r"\A" not in path.value


def _conditions(match: Match) -> object:
    """What of a match the path of a location does not decide."""
    expression = match.path.value if match.path.kind is PathKind.REGEX else None
    return (expression, match.method, match.headers, match.query)


def _flags(match: Match) -> Iterable[Flag]:
    if match.path.kind is PathKind.REGEX and not _is_last_line(match.path):
        yield _flag("$uri", match.path.value)
    for item in match.headers:
        if item.is_regex:
            # A request without a model matches nothing that is said of the model.
            pattern = rf"(?!\z)(?:{item.value})" if item.name in MODEL_HEADERS else item.value
            yield _flag(header_variable(item.name), pattern)
    for item in match.query:
        if item.is_regex:
            yield _flag(f"$arg_{item.name}", item.value)


def _flag(source: str, pattern: str) -> Flag:
    return Flag(variable=f"$is_{digest(f'{source} {pattern}')}", source=source, pattern=rf"^(?:{pattern})\z")


def _parameter(item: ValueMatch) -> str:
    """A lookahead that holds where the first parameter of a name has a value, percent-encoded or not."""
    name = _encoded(item.name)
    value = f"={_encoded(item.value)}" if item.value else "=?"
    return rf"(?=(?:(?!{name}[=&\n])[^&\n]*&)*{name}{value}[&\n])"


def _encoded(value: str) -> str:
    """An expression for every way to write a value in a query string."""
    return "".join(_encoded_byte(byte) for byte in value.encode())


def _encoded_byte(byte: int) -> str:
    code = "%" + "".join(_hex(digit) for digit in f"{byte:02X}")
    if byte == 0x20:
        return rf"(?:\+|{code})"
    # Written as they are, these mean something else in a query: the end of a value, a space, an encoded byte.
    is_plain = 0x21 <= byte <= 0x7E and byte not in b"&+%"
    return f"(?:{re.escape(chr(byte))}|{code})" if is_plain else f"(?:{code})"


def _hex(digit: str) -> str:
    return digit if digit.isdigit() else f"[{digit}{digit.lower()}]"


def digest(content: str) -> str:
    """Ten hexadecimal digits that name a variable by what it holds, whatever else is in the file."""
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:10]
