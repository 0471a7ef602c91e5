"""Session persistence of rules, resolved into the values that templates render.

A cookie is borne by the requests under the path of its match, so matches of several paths have sessions of their own.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from controller.ir.policies import Session
from controller.ir.types import Match, PathKind, PathMatch
from controller.resources.gateway_api import SessionPersistence
from controller.resources.scalars import quoted, seconds
from controller.topology.conditions import Condition, unsupported
from controller.topology.filters import name_problem

_COOKIE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Of the characters that RFC 6265 (section 4.1.1) allows, those that need no care anywhere."""
_LONGEST_PATH: Final = 1024
"""Characters of a cookie's path. Source: RFC 6265bis, section 5.7, which has browsers ignore longer ones."""
_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9/_~!@&=:%,-](?![*+?{]))*")
"""What an expression begins with that stands for itself."""


def sessions_of(
    item: SessionPersistence | None, *, matches: Sequence[Match], where: str
) -> tuple[Session | None, ...] | Condition:
    """Sessions of a rule: one for all matches, or one for each where their cookies have other paths.

    Reason: UnsupportedValue. Source: Gateway API, SessionPersistence, and GEP-1619 for paths.
    """
    if item is None:
        return (None,)
    name = item.session_name or ""
    problem = _name_problem(name, item) if name else None
    if problem:
        return unsupported(f"{where}.sessionName: {problem}")
    in_cookie = item.type == "Cookie"
    # As for other durations of the specification, zero is none. Source: Gateway API, HTTPRouteTimeouts.
    lifetime = seconds(item.absolute_timeout) or None if item.absolute_timeout else None
    is_permanent = item.cookie_config is not None and item.cookie_config.lifetime_type == "Permanent"
    found = tuple(
        Session(
            name=name if in_cookie else name.lower(),
            in_cookie=in_cookie,
            path=_cookie_path(match.path) if in_cookie else "",
            lifetime=lifetime,
            is_permanent=is_permanent and lifetime is not None,
        )
        for match in matches
    )
    return found if len(set(found)) > 1 else found[:1] or (None,)


def _name_problem(name: str, item: SessionPersistence) -> str | None:
    if item.type == "Cookie":
        accepts = "the name of a cookie accepts letters, digits, '_', '.' and '-'"
        return None if _COOKIE.fullmatch(name) else f"{accepts}, found {quoted(name)}"
    lower = name.lower()
    if lower in ("authorization", "cookie", "set-cookie"):
        return f"header {lower} has a meaning of its own"
    return name_problem(lower, readable=True, of_request=True) or name_problem(lower, readable=True, of_request=False)


def _cookie_path(match: PathMatch) -> str:
    """The path of a match; of an expression, the directory that all its paths are in."""
    path = match.value or "/"
    if match.kind is PathKind.REGEX:
        path = _directory(match.value)
    written = quote(path, safe="/~!$&'()*+,:=@-._")
    return written if written.startswith("/") and len(written) <= _LONGEST_PATH else "/"


def _directory(pattern: str) -> str:
    if "|" in pattern:
        return "/"
    found = _PLAIN.match(pattern.removeprefix("^"))
    plain = found[0] if found else ""
    return plain.rpartition("/")[0] or "/"
