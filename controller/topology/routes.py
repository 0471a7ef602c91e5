"""Routes of requests: their rules, and their standing with each parent."""

from collections.abc import Sequence

from controller.resources.gateway_api import HTTPRouteRule, ParentReference
from controller.resources.grpc_route import GRPCRouteRule, RequestRoute
from controller.resources.meta import Key
from controller.topology.attachment import Attached, Parent, own_hostnames
from controller.topology.backends import Backends
from controller.topology.conditions import PARTIALLY_INVALID, Condition, accepted, ignored, merged, resolved_refs
from controller.topology.priorities import priorities_of
from controller.topology.rules import ResolvedRule, resolved_rule
from controller.topology.standing import age_of, standings
from controller.topology.sticky import sticky_header_of
from controller.topology.types import RouteState
from controller.topology.unsupported import Scope, fields_set


def route_state(
    route: RequestRoute,
    *,
    parents: Sequence[tuple[ParentReference, Parent]],
    backends: Backends,
) -> tuple[RouteState, tuple[Key, ...]]:
    """A route with a parent of ours, and the InferencePools that it refers to."""
    key = route.key
    priorities = priorities_of(route)
    sticky, unsticky = sticky_header_of(route.metadata.annotations)
    written: Sequence[HTTPRouteRule | GRPCRouteRule] = route.spec.rules
    rules = [
        resolved_rule(item, number=number, route=key, backends=backends, priority=priority, sticky=sticky)
        for number, (item, priority) in enumerate(zip(written, priorities.by_rule, strict=True))
    ]
    refs = [problem for rule in rules for problem in rule.unresolved]
    invalid = _invalid(rules)
    common = (
        merged(refs) if refs else resolved_refs(),
        ignored(
            [field for rule in rules for field in rule.ignored]
            + [row.path for row in fields_set(route.spec, scope=Scope.ROUTE)]
        ),
        _together(priorities.invalid, unsticky),
    )
    state = RouteState(
        key=key,
        generation=route.metadata.generation,
        parents=standings(
            key,
            parents=parents,
            hostnames=route.spec.hostnames,
            conditions=lambda attached, _: (*common, *_verdict(attached, invalid=invalid)),
        ),
        hostnames=own_hostnames(route.spec.hostnames),
        cases=tuple(case for rule in rules for case in rule.cases),
        created=age_of(route),
    )
    return state, tuple(sorted({pool for rule in rules for pool in rule.pools}))


def _together(*problems: Condition | None) -> Condition | None:
    """One condition for those of one type that are there."""
    found = [problem for problem in problems if problem is not None]
    return merged(found) if found else None


def _verdict(attached: Attached | Condition, *, invalid: Condition | None) -> tuple[Condition, ...]:
    """Accepted, and PartiallyInvalid where that applies. Source: Gateway API, RouteConditionPartiallyInvalid."""
    if isinstance(attached, Condition):
        return (attached,)
    if invalid is None:
        return (accepted(),)
    return (accepted(), invalid) if invalid.type == PARTIALLY_INVALID else (invalid,)


def _invalid(rules: Sequence[ResolvedRule]) -> Condition | None:
    """What the rules that cannot be served make of the route: Accepted=False when no rule is left."""
    dropped = [problem for rule in rules for problem in rule.dropped]
    if dropped and all(rule.dropped for rule in rules):
        return merged(dropped)
    messages = []
    for number, rule in enumerate(rules):
        what = "; ".join(dict.fromkeys(problem.message for problem in (*rule.dropped, *rule.dropped_shares)))
        if rule.dropped:
            becomes = "which answers 500" if rule.cases else "which matches nothing, so other rules have its requests"
            messages.append(f"Dropped Rule {number}, {becomes}: {what}")
        elif rule.dropped_shares:
            messages.append(f"Dropped Rule {number} in part, the share answers 500: {what}")
    if not messages:
        return None
    return merged([Condition(PARTIALLY_INVALID, True, "UnsupportedValue", message) for message in messages])
