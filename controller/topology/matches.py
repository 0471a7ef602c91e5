"""Matches of rules, in a proxy's words."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from controller.ir.types import MODEL_HEADERS, Match, PathKind, PathMatch, ValueMatch
from controller.resources.gateway_api import HTTPHeaderMatch, HTTPPathMatch, HTTPQueryParamMatch, HTTPRouteMatch
from controller.resources.grpc_route import GRPCMethodMatch, GRPCRouteMatch
from controller.topology.conditions import Condition, unsupported
from controller.topology.expressions import expression
from controller.topology.filters import CONTROL, LONGEST_ARGUMENT, value_problem

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_QUERY_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
"""Names whose value nginx can read alone, as $arg_name."""
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
    written = _written(path, headers=headers, query=query)
    if written > LONGEST_ARGUMENT:
        found = f"it takes {written} bytes in nginx.conf, which accepts {LONGEST_ARGUMENT}"
        return unsupported(f"{where}: the match is too long: {found}")
    return Match(path=path, method=item.method, headers=headers, query=query)


def call_of(item: GRPCRouteMatch, *, where: str) -> Match | Condition:
    """One match of a rule about calls, whose path is `/SERVICE/METHOD`. Reason: UnsupportedValue."""
    method = item.method or GRPCMethodMatch(type="RegularExpression", service="")
    path = _call_path(method, where=f"{where}.method")
    if isinstance(path, Condition):
        return path
    headers = _headers(item.headers, where=f"{where}.headers") if item.headers else ()
    if isinstance(headers, Condition):
        return headers
    if computed := [item.name for item in headers if item.name in MODEL_HEADERS]:
        found = f"found {', '.join(computed)}, which is computed from a body in JSON or a form"
        return unsupported(f"{where}.headers: accepts headers that calls of gRPC can have, {found}")
    written = _written(path, headers=headers, query=())
    if written > LONGEST_ARGUMENT:
        found = f"it takes {written} bytes in nginx.conf, which accepts {LONGEST_ARGUMENT}"
        return unsupported(f"{where}: the match is too long: {found}")
    kind = 2 if path is _ROOT else int(method.type != "Exact")
    return Match(path=path, headers=headers, call=(kind, len(method.service or ""), len(method.method or "")))


def prefix_of(match: Match) -> str | None:
    """The path that a prefix match replaces, None for matches of other kinds."""
    return match.path.value if match.path.kind is PathKind.PREFIX else None


def _written(path: PathMatch, *, headers: Sequence[ValueMatch], query: Sequence[ValueMatch]) -> int:
    """Most bytes that a match takes in one argument of nginx.conf, where its values stand in one expression.

    An escaped character takes 3 bytes; one of a query 18, since it may be percent-encoded. Names of headers are counted
    fourfold, because those of all matches of a path stand in one argument.
    """
    size = 2 * len(path.value.encode()) if path.kind is PathKind.REGEX else 0
    size += sum((2 if item.is_regex else 3) * len(item.value.encode()) + 4 * len(item.name) for item in headers)
    exact = [item for item in query if not item.is_regex]
    return size + sum(18 * (2 * len(item.name.encode()) + len(item.value.encode())) + 50 for item in exact)


def _call_path(item: GRPCMethodMatch, *, where: str) -> PathMatch | Condition:
    """Empty names are those of any service or method. Source: Gateway API, GRPCMethodMatch."""
    if not item.service and not item.method:
        return _ROOT
    if item.type == "Exact" and item.service:
        path = f"/{item.service}"
        return PathMatch(PathKind.EXACT, f"{path}/{item.method}") if item.method else PathMatch(PathKind.PREFIX, path)
    parts: list[str] = []
    for field, value in (("service", item.service), ("method", item.method)):
        pattern = re.escape(value) if item.type == "Exact" and value else expression(value or "[^/]+")
        if isinstance(pattern, Condition):
            return _at(f"{where}.{field}", pattern)
        parts.append(pattern if item.type == "Exact" else f"(?:{pattern})")
    return PathMatch(PathKind.REGEX, "/" + "/".join(parts))


def _path(item: HTTPPathMatch, *, where: str) -> PathMatch | Condition:
    if item.type == "RegularExpression":
        pattern = expression(item.value)
        return _at(where, pattern) if isinstance(pattern, Condition) else PathMatch(PathKind.REGEX, pattern)
    if item.value == "/" and item.type == "PathPrefix":
        return _ROOT
    path = _decoded(item.value) if "%" in item.value else item.value
    if path is None:
        return unsupported(f"{where}.value: accepts %XX that are visible UTF-8 together, found {item.value!a}")
    if {".", ".."} & set(path.split("/")):
        return unsupported(f"{where}.value: nginx resolves '.' and '..' before it compares, found {item.value!a}")
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
        if item.type == "RegularExpression" and not _QUERY_NAME.fullmatch(item.name):
            found = f"accepts letters, digits and '_', found {item.name!a}"
            return unsupported(f"{where}[{number}].name: of a parameter with a regular expression {found}")
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
