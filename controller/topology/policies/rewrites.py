"""InferenceModelRewrites: which models of a pool stand for which, and what is wrong with them.

Of several rules the one that names the model of a request comes before one that names none; then the oldest resource,
then the first rule in it. Source: llm-d router, InferenceModelRewrite v1alpha2.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.pools import ModelRewrite, ModelTarget
from controller.resources.rewrites import InferenceModelRewrite, RewriteRule, RewriteTarget
from controller.resources.scalars import quoted
from controller.topology.conditions import (
    IGNORED_FIELDS,
    Condition,
    accepted,
    merged,
    ordered,
)
from controller.topology.index import Index, Name
from controller.topology.policies.references import age, pool_named, standing_of
from controller.topology.sticky import sticky_header_of
from controller.topology.types import RewriteState


@dataclass(frozen=True)
class Rewrites:
    """What the InferenceModelRewrites come to."""

    states: tuple[RewriteState, ...]
    """Sorted by key."""
    of_pools: Mapping[Name, tuple[ModelRewrite, ...]]
    """By pool, in order of precedence."""


def rewrites_of(index: Index) -> Rewrites:
    """Every InferenceModelRewrite with its standing, and what each pool rewrites."""
    taken: dict[Name, InferenceModelRewrite] = {}
    found: dict[Name, list[ModelRewrite]] = {}
    states: list[RewriteState] = []
    for item in sorted(index.rewrites, key=age):
        first = taken.setdefault((item.metadata.namespace, item.metadata.name), item)
        verdict = standing_of(item, item.spec.pool_ref, first=first, index=index)
        conditions: tuple[Condition, ...] = (verdict,)
        if verdict.status:
            sticky, invalid = sticky_header_of(item.metadata.annotations)
            made = [_rewrite(item, number, sticky=sticky) for number in range(len(item.spec.rules))]
            earlier = found.setdefault(pool_named(item, item.spec.pool_ref), [])
            unused = [*_unused_targets(item), *_unused_rules(made, earlier=earlier)]
            earlier += made
            conditions = ordered(accepted(_equal_shares(item)), _without_effect(unused), invalid)
        states.append(RewriteState(item.key, item.metadata.generation, conditions))
    of_pools = {pool: by_precedence(rewrites) for pool, rewrites in found.items()}
    return Rewrites(tuple(sorted(states, key=lambda state: state.key)), of_pools)


def by_precedence(rewrites: Iterable[ModelRewrite]) -> tuple[ModelRewrite, ...]:
    """Rewrites of a pool, which are given oldest first, without what others leave nothing to."""
    exact: list[ModelRewrite] = []
    generic: list[ModelRewrite] = []
    named: set[str] = set()
    for item in rewrites:
        if not item.models:
            generic.append(item)
        elif left := [model for model in item.models if model not in named]:
            named.update(left)
            exact.append(ModelRewrite(item.source, item.targets, tuple(left), item.sticky_header))
    return (*exact, *generic[:1])


def targets_of(weights: Sequence[tuple[str, int | None]]) -> tuple[ModelTarget, ...]:
    """Targets from (model, weight): where the weights add up to 0, all get the same; a missing one is 0 otherwise."""
    total = sum(weight or 0 for _, weight in weights)
    return tuple(ModelTarget(model, weight or 0 if total else 1) for model, weight in weights)


def _rewrite(item: InferenceModelRewrite, number: int, *, sticky: str) -> ModelRewrite:
    rule = item.spec.rules[number]
    return ModelRewrite(
        source=f"{item.key}, rule {number}",
        targets=targets_of([(target.model_rewrite, target.weight) for target in rule.targets]),
        models=_models(rule),
        sticky_header=sticky,
    )


def _models(rule: RewriteRule) -> tuple[str, ...]:
    """Exact names; none where one of the matches, or the lack of them, is for every model."""
    names = [match.model.value for match in rule.matches if match.model is not None]
    return tuple(sorted(set(names))) if len(names) == len(rule.matches) else ()


def _equal_shares(item: InferenceModelRewrite) -> str:
    """Which rules divide requests evenly although, or because, they have no weight."""
    rules = [f"spec.rules[{number}]" for number, rule in enumerate(item.spec.rules) if _is_even(rule.targets)]
    return f"weights add up to 0, so all targets get the same share: {', '.join(rules)}" if rules else ""


def _is_even(targets: Sequence[RewriteTarget]) -> bool:
    return len(targets) > 1 and not any(target.weight for target in targets)


def _unused_targets(item: InferenceModelRewrite) -> Iterable[str]:
    """Targets without a weight beside others that have one, and weights that count for nothing."""
    for number, rule in enumerate(item.spec.rules):
        for place, target in enumerate(rule.targets):
            path = f"spec.rules[{number}].targets[{place}]"
            if _is_even(rule.targets) and target.weight is not None:
                yield f"{path}.weight, since all weights are 0"
            elif target.weight is None and any(other.weight for other in rule.targets):
                yield f"{path}, which has no weight and so gets no request while others have one"


def _unused_rules(made: Sequence[ModelRewrite], *, earlier: Sequence[ModelRewrite]) -> Iterable[str]:
    """What rules ask for that others come before in."""
    before = list(earlier)
    for number, item in enumerate(made):
        owners = {model: other.source for other in reversed(before) for model in other.models}
        for model in item.models:
            if model in owners:
                yield f"spec.rules[{number}] for {quoted(model)}, which {owners[model]} has"
        generic = next((other for other in before if not other.models), None)
        if not item.models and generic is not None:
            yield f"spec.rules[{number}], since {generic.source} is for every other model already"
        before.append(item)


def _without_effect(unused: Sequence[str]) -> Condition | None:
    if not unused:
        return None
    return merged([Condition(IGNORED_FIELDS, True, "UnsupportedValue", f"without effect: {what}") for what in unused])
