"""What rules ask of pools beside endpoints: priorities, and which models they have."""

from collections.abc import Iterable, Sequence

from controller.ir.types import BASE_MODEL_HEADER, MODEL_HEADERS, NO_PRIORITY, Rule, Server, ToPool


def prioritized_pools(servers: Sequence[Server]) -> set[str]:
    """Names of the pools that get requests of rules with a priority."""
    rules = (rule for server in servers for rule in server.rules if rule.priority != NO_PRIORITY)
    return {backend.target.pool for rule in rules for backend in rule.backends if isinstance(backend.target, ToPool)}


def listing_pools(servers: Sequence[Server]) -> set[str]:
    """Names of the pools whose models the gateway itself is asked for.

    It is with those of a rule's other pools; where rules of a place choose by the model, and none is left; and where a
    rule asks for the base model, which may be of any pool.
    """
    rules = [rule for server in servers for rule in server.rules]
    found = {pool for rule in rules if len(pools := _drawn([rule])) > 1 for pool in pools}
    for cases in (location.cases for server in servers for location in server.locations):
        asked = {item.name for case in cases for item in case.match.headers}
        if BASE_MODEL_HEADER in asked:
            return _drawn(rules)
        if not asked.isdisjoint(MODEL_HEADERS):
            found |= _drawn(case.rule for case in cases)
    return found


def _drawn(rules: Iterable[Rule]) -> set[str]:
    """Names of the pools that get a share."""
    backends = [backend for rule in rules for backend in rule.backends if backend.weight > 0]
    return {backend.target.pool for backend in backends if isinstance(backend.target, ToPool)}
