"""Sessions of rules as nginx and its script read them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from controller.headers import session_id
from controller.ir.filters import Redirect
from controller.ir.policies import Session
from controller.ir.types import Backend, Rule, Target, ToPool, ToUpstream
from controller.render.headers import AnswerHeaders, Header
from controller.render.maps import digest


@dataclass(frozen=True)
class SessionView:
    """Chooses among the backends of a rule that has several: the one of a session, or what is drawn without one."""

    rule: Rule
    settings: str
    """For the script, as JSON."""
    variable: str
    """Holds the location of the backend."""
    default: str
    """Where a request without a session goes: a location, or the variable of a split."""
    places: tuple[tuple[str, str], ...]
    """(what the token says, location), sorted."""


def session_view(rule: Rule, *, places: Mapping[int, str], default: str, is_secure: bool) -> SessionView:
    """places: locations of backends, by their index in the rule."""
    assert rule.session is not None
    found = {index: location for index, location in places.items() if is_kept(rule.backends[index])}
    backends = dict(_known(rule, index) for index in found)
    return SessionView(
        rule=rule,
        settings=_settings(rule, rule.session, backends=backends, is_secure=is_secure),
        variable=f"$session_{digest(rule.id)}",
        default=default,
        places=tuple(sorted((_known(rule, index)[0], location) for index, location in found.items())),
    )


def backend_settings(rule: Rule, index: int, *, is_secure: bool) -> str:
    """What the script needs to know in the location of a backend, as JSON; empty without sessions."""
    if rule.session is None or not is_kept(rule.backends[index]):
        return ""
    return _settings(rule, rule.session, backends=dict([_known(rule, index)]), is_secure=is_secure)


def is_kept(backend: Backend) -> bool:
    """Whether a session can stay with a backend, whatever its weight. Source: GEP-1619, Traffic Splitting."""
    return bool(_name(backend.target)) and not any(isinstance(item, Redirect) for item in backend.filters)


def with_session(answer: AnswerHeaders, rule: Rule) -> AnswerHeaders:
    """Headers of answers, and what tells the client of its session."""
    if rule.session is None:
        return answer
    name = "Set-Cookie" if rule.session.in_cookie else session_name(rule, rule.session)
    hidden = set() if rule.session.in_cookie else {name}
    return AnswerHeaders(
        hidden=tuple(sorted({*answer.hidden, *hidden})),
        added=(*answer.added, Header(name, "$infergate_session_given")),
    )


def session_name(rule: Rule, session: Session) -> str:
    """Of the cookie or header. Source: GEP-1619, which has no two rules share one unless users say so."""
    return session.name or f"infergate-session-{digest(f'{rule.route}/{rule.index}')}"


def routes_of(upstream: str, servers: tuple[str, ...]) -> tuple[str, ...]:
    """What tokens say of the servers of an upstream, in their order."""
    return tuple(session_id(upstream, server) for server in servers)


def _settings(rule: Rule, session: Session, *, backends: Mapping[str, str], is_secure: bool) -> str:
    settings: dict[str, object] = {"cookie" if session.in_cookie else "header": session_name(rule, session)}
    if session.in_cookie:
        settings |= {"path": session.path, "isSecure": is_secure}
    if session.lifetime is not None:
        settings |= {"lifetime": round(session.lifetime) or 1, "isPermanent": session.is_permanent}
    return json.dumps({**settings, "backends": backends}, separators=(",", ":"))


def _known(rule: Rule, index: int) -> tuple[str, str]:
    """What tokens of a rule say of one of its backends, and the name that its endpoints go by."""
    names = [_name(backend.target) for backend in rule.backends]
    # One may be there several times, with other filters.
    nth = names[:index].count(names[index])
    return hashlib.sha256(f"{rule.id} {names[index]} {nth}".encode()).hexdigest()[:16], names[index]


def _name(target: Target) -> str:
    match target:
        case ToUpstream(upstream=name) | ToPool(pool=name):
            return name
        case _:
            return ""
