"""Session persistence of rules."""

import pytest

from controller.ir.policies import Session
from controller.ir.types import Match, PathKind, PathMatch
from controller.resources.gateway_api import SessionPersistence
from controller.topology.conditions import Condition
from controller.topology.sessions import sessions_of

ROOT = Match(PathMatch(PathKind.PREFIX, ""))


def _sessions(*matches: Match, **fields: object) -> list[Session]:
    found = _found(*matches, **fields)
    assert not isinstance(found, Condition)
    return [session for session in found if session]


def _found(*matches: Match, **fields: object) -> tuple[Session | None, ...] | Condition:
    return sessions_of(SessionPersistence.model_validate(fields), matches=matches or (ROOT,), where="here")


def test_rule_without_the_field_has_none() -> None:
    assert sessions_of(None, matches=(ROOT,), where="here") == (None,)


def test_cookie_is_the_default() -> None:
    assert _sessions() == [Session("", in_cookie=True, path="/", lifetime=None)]


def test_header_has_no_path_and_a_lower_case_name() -> None:
    matches = [Match(PathMatch(PathKind.PREFIX, path)) for path in ("/a", "/b")]
    found = _sessions(*matches, type="Header", sessionName="X-At", absoluteTimeout="1m")
    assert found == [Session("x-at", in_cookie=False, path="", lifetime=60.0)]


@pytest.mark.parametrize(
    ("timeout", "lifetime", "is_permanent"), [("1h30m", 5400.0, True), ("500ms", 0.5, True), ("0s", None, False)]
)
def test_permanent_cookie_lasts_as_long_as_its_session(
    timeout: str, lifetime: float | None, is_permanent: bool
) -> None:
    found = _sessions(absoluteTimeout=timeout, cookieConfig={"lifetimeType": "Permanent"})
    assert found == [Session("", in_cookie=True, path="/", lifetime=lifetime, is_permanent=is_permanent)]


PATHS = [
    (PathKind.PREFIX, "", "/"),
    (PathKind.PREFIX, "/a/b", "/a/b"),
    (PathKind.EXACT, "/a b;c\u00e9", "/a%20b%3Bc%C3%A9"),
    (PathKind.EXACT, "/" + "\u00e9" * 400, "/"),
    (PathKind.REGEX, "/p1/p2/[^/]+/p3", "/p1/p2"),
    (PathKind.REGEX, "^/p1/x.*", "/p1"),
    (PathKind.REGEX, "/p1/?", "/"),
    (PathKind.REGEX, "/p1/p2/{1,2}", "/p1"),
    (PathKind.REGEX, "/a/b|/c/d", "/"),
    (PathKind.REGEX, "(?:/a)/b", "/"),
    (PathKind.REGEX, "[a-z/]*", "/"),
]


@pytest.mark.parametrize(("kind", "value", "path"), PATHS)
def test_path_of_a_cookie_covers_its_match(kind: PathKind, value: str, path: str) -> None:
    assert [session.path for session in _sessions(Match(PathMatch(kind, value)))] == [path]


def test_matches_of_several_paths_have_sessions_of_their_own() -> None:
    matches = [Match(PathMatch(PathKind.PREFIX, path)) for path in ("/a", "/b")]
    found = _sessions(*matches)
    assert [session.path for session in found] == ["/a", "/b"]
    assert _sessions(matches[0], Match(matches[0].path, method="GET")) == [found[0]]


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        ("Cookie", "a=b"),
        ("Cookie", "a; Path=/"),
        ("Cookie", "a b"),
        ("Cookie", "\u00e9"),
        ("Header", "a_b"),
        ("Header", "Set-Cookie"),
        ("Header", "Cookie"),
        ("Header", "Connection"),
        ("Header", "Host"),
        ("Header", "Server"),
        ("Header", "X-Infergate-Then"),
    ],
)
def test_name_that_means_something_else_is_refused(type_: str, name: str) -> None:
    found = _found(type=type_, sessionName=name)
    assert isinstance(found, Condition)
    assert (found.reason, found.message.startswith("here.sessionName: ")) == ("UnsupportedValue", True)
