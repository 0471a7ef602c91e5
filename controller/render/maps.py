"""Maps that choose among the rules of a location by what the path does not decide.

A map has one source. Here it is one line for each thing that some case of the location asks for: the method, headers,
the query, and a flag for each regular expression. No client can put a newline into any of these, so an expression over
the lines cannot be led astray. nginx tries the expressions of a map in order, and exact strings before all of them;
that is why there are expressions only. None has a capture (CVE-2026-93479).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.ir.types import Case, Location, Match, PathKind, Rule, ValueMatch, is_unconditional
from controller.render.quoting import expression

NOT_FOUND = "@infergate_not_found"
_ANY_LINE = r"[^\n]*\n"


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
    pattern: str | None
    """None: holds for every request, and is the last."""
    summary: str
    """The match in words, for a reader."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class RuleMap:
    """A map from what a request has, to the named location of the rule that serves it."""

    variable: str
    source: str
    """Quoted nginx expression."""
    choices: tuple[Choice, ...]
    default: str
    """The named location when no choice holds."""


def rule_map(location: Location) -> RuleMap | None:
    """The map of a location; None where its first case always holds, or there is none."""
    if not location.cases or is_unconditional(location.cases[0].match):
        return None
    columns = _Columns(location.cases)
    choices = tuple(
        Choice(
            rule=case.rule,
            pattern=columns.pattern(case.match),
            summary=describe(case.match),
            flags=tuple(_flags(case.match)),
        )
        for case in location.cases
    )
    default = f"@{location.cases[-1].rule.id}" if location.is_complete else NOT_FOUND
    content = repr((columns.source, [(choice.rule.id, choice.pattern) for choice in choices]))
    return RuleMap(
        variable=f"$rule_{digest(content)}",
        source=columns.source,
        choices=tuple(choice for choice in choices if choice.pattern is not None),
        default=default,
    )


def describe(match: Match) -> str:
    """A match in words: `POST /v1/chat x-tier=gold ?beta=1`; `~` stands before a regular expression."""
    path = {PathKind.EXACT: "={}", PathKind.PREFIX: "{}/", PathKind.REGEX: "~{}"}[match.path.kind]
    parts = [match.method or "", path.format(match.path.value)]
    parts += [f"{item.name}{'~' if item.is_regex else '='}{item.value}" for item in match.headers]
    parts += [f"?{item.name}{'~' if item.is_regex else '='}{item.value}" for item in match.query]
    return " ".join(part for part in parts if part)


def header_variable(name: str) -> str:
    """nginx's variable for a request header."""
    return "$http_" + name.lower().replace("-", "_")


class _Columns:
    """The lines of a location's source, and how each match reads them."""

    def __init__(self, cases: Iterable[Case]) -> None:
        matches = [case.match for case in cases]
        self._has_method = any(match.method for match in matches)
        self._headers = sorted({item.name for match in matches for item in match.headers if not item.is_regex})
        self._has_query = any(not item.is_regex for match in matches for item in match.query)
        self._flags = tuple(sorted({flag for match in matches for flag in _flags(match)}))

    @property
    def source(self) -> str:
        variables = ["$request_method"] if self._has_method else []
        variables += [header_variable(name) for name in self._headers]
        variables += ["$args"] if self._has_query else []
        variables += [flag.variable for flag in self._flags]
        return expression(*(f"{variable}\\n" for variable in variables))

    def pattern(self, match: Match) -> str | None:
        """An expression over the source that holds where the match holds; None if it always does."""
        if is_unconditional(match):
            return None
        lines: list[str] = []
        if self._has_method:
            lines.append(re.escape(match.method) + r"\n" if match.method else _ANY_LINE)
        exact = {item.name: item.value for item in match.headers if not item.is_regex}
        lines += [re.escape(exact[name]) + r"\n" if name in exact else _ANY_LINE for name in self._headers]
        if self._has_query:
            lines.append("".join(_parameter(item) for item in match.query if not item.is_regex) + _ANY_LINE)
        raised = set(_flags(match))
        lines += [r"1\n" if flag in raised else _ANY_LINE for flag in self._flags]
        while lines and lines[-1] == _ANY_LINE:
            lines.pop()
        return "^" + "".join(lines)


def _flags(match: Match) -> Iterable[Flag]:
    if match.path.kind is PathKind.REGEX:
        yield _flag("$uri", match.path.value)
    for item in match.headers:
        if item.is_regex:
            yield _flag(header_variable(item.name), item.value)
    for item in match.query:
        if item.is_regex:
            yield _flag(f"$arg_{item.name}", item.value)


def _flag(source: str, pattern: str) -> Flag:
    return Flag(variable=f"$is_{digest(source + pattern)}", source=source, pattern=rf"^(?:{pattern})\z")


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
    return f"(?:{re.escape(chr(byte))}|{code})" if 0x21 <= byte <= 0x7E else f"(?:{code})"


def _hex(digit: str) -> str:
    return digit if digit.isdigit() else f"[{digit}{digit.lower()}]"


def digest(content: str) -> str:
    """Ten hexadecimal digits that name a variable by what it holds, whatever else is in the file."""
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:10]
