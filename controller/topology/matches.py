"""Matches of rules, in a proxy's words."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from controller.ir.types import Match, PathKind, PathMatch, ValueMatch
from controller.resources.gateway_api import HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch
from controller.topology.conditions import Condition, unsupported
from controller.topology.expressions import expression
from controller.topology.filters import CONTROL, value_problem

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_ROOT: Final = PathMatch(PathKind.PREFIX, "")


def match_of(item: HTTPRouteMatch, *, where: str) -> Match | Condition:
    """One match of a rule. `where` names it in messages. Reason: UnsupportedValue."""
    path = _path(item.path, where=f"{where}.path")
    if isinstance(path, Condition):
        return path
    headers = _headers(item.headers, where=f"{where}.headers") if item.headers else ()
    if isinstance(headers, Condition):
        return headers
    query = _query(item.query_params, where=f"{where}.queryParams") if item.query_params else ()
    if isinstance(query, Condition):
        return query
    return Match(path=path, method=item.method, headers=headers, query=query)


def prefix_of(match: Match) -> str | None:
    """The path that a prefix match replaces, None for matches of other kinds."""
    return match.path.value if match.path.kind is PathKind.PREFIX else None


def _path(item: HTTPPathMatch, *, where: str) -> PathMatch | Condition:
    if item.type == "RegularExpression":
        pattern = expression(item.value)
        return _at(where, pattern) if isinstance(pattern, Condition) else PathMatch(PathKind.REGEX, pattern)
    if item.value == "/" and item.type == "PathPrefix":
        return _ROOT
    path = _decoded(item.value) if "%" in item.value else item.value
    if path is None:
        return unsupported(f"{where}.value: accepts %XX that are visible UTF-8 together, found {item.value!a}")
    if item.type == "Exact":
        return PathMatch(PathKind.EXACT, path)
    return PathMatch(PathKind.PREFIX, path.rstrip("/"))


def _decoded(path: str) -> str | None:
    """None when it does not decode to text without control characters, which no location can match."""
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return None
    return None if CONTROL.search(decoded) or "\t" in decoded else decoded


def _headers(items: Sequence[HTTPHeaderMatch], *, where: str) -> tuple[ValueMatch, ...] | Condition:
    """Of several entries for one name the first counts. Source: Gateway API, HTTPHeaderMatch.name."""
    values: dict[str, ValueMatch] = {}
    for number, item in enumerate(items):
        name = item.name.lower()
        if name in values:
            continue
        if not _HEADER_NAME.fullmatch(name):
            found = f"accepts letters, digits and '-', found {item.name!a}"
            return unsupported(f"{where}[{number}].name: nginx cannot read other headers, {found}")
        value = _value(item, name=name, where=f"{where}[{number}]")
        if isinstance(value, Condition):
            return value
        values[name] = value
    return tuple(values.values())


def _query(items: Sequence[HTTPQueryParamMatch], *, where: str) -> tuple[ValueMatch, ...] | Condition:
    """Of several entries for one name the first counts. Source: Gateway API, HTTPQueryParamMatch.name."""
    values: dict[str, ValueMatch] = {}
    for number, item in enumerate(items):
        if item.name in values:
            continue
        value = _value(item, name=item.name, where=f"{where}[{number}]")
        if isinstance(value, Condition):
            return value
        values[item.name] = value
    return tuple(values.values())


def _value(item: HTTPHeaderMatch | HTTPQueryParamMatch, *, name: str, where: str) -> ValueMatch | Condition:
    if item.type == "RegularExpression":
        pattern = expression(item.value)
        return _at(where, pattern) if isinstance(pattern, Condition) else ValueMatch(name, pattern, is_regex=True)
    problem = value_problem(item.value)
    return unsupported(f"{where}.value {problem}") if problem else ValueMatch(name, item.value)


def _at(where: str, problem: Condition) -> Condition:
    return unsupported(f"{where}.value: {problem.message}")
