"""Rules of a route of requests, each resolved once.

A rule that cannot be served as written answers 500 on every match that can be written down. So a request that it would
have caught never falls to a broader rule, whether other rules of its route are sound or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from controller.ir.filters import Filter
from controller.ir.policies import Session
from controller.ir.types import Backend, Case, Match, Priority, Rule, ToStatus
from controller.resources.gateway_api import HTTPBackendRef, HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule
from controller.resources.grpc_route import GRPCRouteMatch, GRPCRouteRule
from controller.resources.meta import Key
from controller.topology.attempts import ignored_of, retry_of, timeouts_of
from controller.topology.backends import Backends, backend_key
from controller.topology.conditions import Condition, merged, unresolved
from controller.topology.filters import (
    Targets,
    filters,
    replaces_prefix,
    rewritten_and_redirected,
    uncopied,
    unresolved_mirrors,
)
from controller.topology.matches import call_of, match_of, prefix_of
from controller.topology.sessions import sessions_of

T = TypeVar("T")

_EVERYTHING = (HTTPRouteMatch(),)
_EVERY_CALL = (GRPCRouteMatch(),)


@dataclass(frozen=True)
class ResolvedRule:
    """One rule, and what is wrong with it."""

    cases: tuple[Case, ...]
    dropped: tuple[Condition, ...]
    """Why the whole rule answers 500; empty when it does not."""
    dropped_shares: tuple[Condition, ...]
    """Why some of its backends answer 500, although they resolve."""
    unresolved: tuple[Condition, ...]
    """References that do not resolve."""
    ignored: tuple[str, ...]
    """Fields without effect."""
    pools: tuple[Key, ...]
    """InferencePools that it refers to and that resolve."""


def resolved_rule(
    item: HTTPRouteRule | GRPCRouteRule, *, number: int, route: Key, backends: Backends, priority: Priority, sticky: str
) -> ResolvedRule:
    """The rule `number` of a route. sticky: as in `Rule.sticky_header`."""
    where = f"rules[{number}]"
    found = _matches(item, where=f"{where}.matches")
    takes_calls = isinstance(item, GRPCRouteRule)
    timeouts, retry = (None, None) if isinstance(item, GRPCRouteRule) else (item.timeouts, item.retry)
    matches = [match for match in found if not isinstance(match, Condition)]
    dropped = [match for match in found if isinstance(match, Condition)]
    targets = partial(backends.target, route=route)
    variants = _filters(item, matches=matches, where=where, targets=targets)
    if isinstance(variants, Condition):
        dropped.append(variants)
    sessions = sessions_of(item.session_persistence, matches=matches, where=f"{where}.sessionPersistence")
    if isinstance(sessions, Condition):
        dropped.append(sessions)
    # The one match that its filters can depend on: a resource with several and a prefix to replace is refused.
    prefix = prefix_of(matches[0]) if len(matches) == 1 else None
    shares = [
        _backend(
            ref,
            around=item.filters,
            prefix=prefix,
            where=f"{where}.backendRefs[{position}]",
            route=route,
            targets=targets,
        )
        for position, ref in enumerate(item.backend_refs)
    ]
    dropped_shares = [share.dropped for share in shares if share.dropped is not None]
    if dropped_shares and all(share.dropped or not share.backend.weight for share in shares):
        dropped += dropped_shares
    if dropped or isinstance(variants, Condition) or isinstance(sessions, Condition):
        answer = Backend(ToStatus(500, merged(dropped).message), weight=1)
        rule = Rule(route, number, item.name or "", filters=(), backends=(answer,), takes_calls=takes_calls)
        cases = tuple(Case(match, rule) for match in matches)
    else:
        served = tuple(share.backend for share in shares)
        rule = Rule(
            route,
            number,
            item.name or "",
            filters=(),
            backends=served,
            priority=priority,
            sticky_header=sticky,
            timeouts=timeouts_of(timeouts),
            retry=retry_of(retry),
            takes_calls=takes_calls,
        )
        cases = _cases(matches, variants=variants, sessions=sessions, rule=rule)
    has_pool = any(share.pool for share in shares)
    return ResolvedRule(
        cases=cases,
        dropped=tuple(dropped),
        dropped_shares=tuple(dropped_shares),
        unresolved=(
            *unresolved_mirrors(item.filters, where=f"{where}.filters", targets=targets),
            *(problem for share in shares for problem in share.unresolved),
        ),
        ignored=tuple(
            f"{where}.{field}"
            for field in (
                *ignored_of(retry, has_pool=has_pool),
                *uncopied(item.filters, backends=[ref.filters for ref in item.backend_refs]),
            )
        ),
        pools=(
            *(share.pool for share in shares if share.pool is not None),
            *_mirrored_pools(item, route=route, targets=targets),
        ),
    )


def _mirrored_pools(item: HTTPRouteRule | GRPCRouteRule, *, route: Key, targets: Targets) -> Iterable[Key]:
    """InferencePools that get copies, of the rule and of its backends."""
    filters = (one for some in (item.filters, *(ref.filters for ref in item.backend_refs)) for one in some)
    references = (one.request_mirror.backend_ref for one in filters if one.request_mirror is not None)
    for reference in references:
        if reference.kind == "InferencePool" and not isinstance(targets(reference), Condition):
            yield backend_key(reference, route=route)


def _matches(item: HTTPRouteRule | GRPCRouteRule, *, where: str) -> list[Match | Condition]:
    if isinstance(item, GRPCRouteRule):
        return [call_of(match, where=f"{where}[{n}]") for n, match in enumerate(item.matches or _EVERY_CALL)]
    return [match_of(match, where=f"{where}[{n}]") for n, match in enumerate(item.matches or _EVERYTHING)]


def _filters(
    item: HTTPRouteRule | GRPCRouteRule, *, matches: Sequence[Match], where: str, targets: Targets
) -> tuple[tuple[Filter, ...], ...] | Condition:
    """Filters of a rule: once for all matches, or once per match where they depend on its path."""
    place = f"{where}.filters"
    if not item.filters:
        return ((),)
    if not replaces_prefix(item.filters):
        shared = filters(item.filters, prefix=None, at_backend=False, where=place, targets=targets)
        return shared if isinstance(shared, Condition) else (shared,)
    variants = []
    for match in matches:
        own = filters(item.filters, prefix=prefix_of(match), at_backend=False, where=place, targets=targets)
        if isinstance(own, Condition):
            return own
        variants.append(own)
    return tuple(variants) if len(set(variants)) > 1 else tuple(variants[:1])


def _cases(
    matches: Sequence[Match],
    *,
    variants: Sequence[tuple[Filter, ...]],
    sessions: Sequence[Session | None],
    rule: Rule,
) -> tuple[Case, ...]:
    """`rule` has neither filters nor a session yet; there are one of them for all matches, or one for each."""
    if len(variants) == 1 and len(sessions) == 1:
        shared = replace(rule, filters=variants[0], session=sessions[0])
        return tuple(Case(match, shared) for match in matches)
    return tuple(
        Case(match, replace(rule, filters=own, session=session, match=position))
        for position, (match, own, session) in enumerate(
            zip(matches, _for_each(variants, matches), _for_each(sessions, matches), strict=True)
        )
    )


def _for_each(found: Sequence[T], matches: Sequence[Match]) -> Sequence[T]:
    return tuple(found) * len(matches) if len(found) == 1 else found


@dataclass(frozen=True)
class _Share:
    """One backend, with what is wrong with its reference and with its filters."""

    backend: Backend
    unresolved: tuple[Condition, ...] = ()
    dropped: Condition | None = None
    pool: Key | None = None


def _backend(
    ref: HTTPBackendRef,
    *,
    around: Sequence[HTTPRouteFilter],
    prefix: str | None,
    where: str,
    route: Key,
    targets: Targets,
) -> _Share:
    """A backend keeps its share, whatever is wrong with it. around: the filters of its rule."""
    target = targets(ref)
    if isinstance(target, Condition):
        problem = unresolved(target.reason, f"{where}: {target.message}")
        return _Share(Backend(ToStatus(500, target.message), weight=ref.weight), unresolved=(problem,))
    pool = backend_key(ref, route=route) if ref.kind == "InferencePool" else None
    if not ref.filters:
        return _Share(Backend(target, weight=ref.weight), pool=pool)
    own = rewritten_and_redirected(around, ref.filters, where=f"{where}.filters") or filters(
        ref.filters, prefix=prefix, at_backend=True, where=f"{where}.filters", targets=targets
    )
    if isinstance(own, Condition):
        return _Share(Backend(ToStatus(500, own.message), weight=ref.weight), dropped=own, pool=pool)
    broken = unresolved_mirrors(ref.filters, where=f"{where}.filters", targets=targets)
    return _Share(Backend(target, weight=ref.weight, filters=own), unresolved=tuple(broken), pool=pool)
