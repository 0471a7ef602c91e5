"""InferenceModels: how important models of a pool are, which models stand for them, and what is wrong with them.

Source: Inference Extension, InferenceModel v1alpha2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.pools import ModelRewrite
from controller.resources.legacy import Criticality, InferenceModel
from controller.resources.meta import Key
from controller.resources.scalars import quoted
from controller.topology.conditions import IGNORED_FIELDS, Condition, accepted, ordered, refused
from controller.topology.index import Index, Name
from controller.topology.policies.references import pool_named, pool_problem
from controller.topology.policies.rewrites import by_precedence, targets_of
from controller.topology.types import ModelState

PRIORITIES: Final = {Criticality.CRITICAL: 10, Criticality.STANDARD: 0, Criticality.SHEDDABLE: -10}
"""Where there is no number: a request without a priority has 0, and one below 0 is sheddable. Between them is room for
InferenceObjectives."""


@dataclass(frozen=True)
class Models:
    """What the InferenceModels come to."""

    states: tuple[ModelState, ...]
    """Sorted by key."""
    priorities: Mapping[Name, Mapping[str, int]]
    """By pool, then by the model's name; of those that say how important they are."""
    rewrites: Mapping[Name, tuple[ModelRewrite, ...]]
    """Of each pool in order of precedence: those of the InferenceModels behind those that were given."""


def models_of(index: Index, *, rewrites: Mapping[Name, tuple[ModelRewrite, ...]]) -> Models:
    """Every InferenceModel with its standing, and what it says of its pool.

    A name has one InferenceModel in a pool, the oldest. `rewrites` are those of InferenceModelRewrites, which go first.
    """
    holders: dict[tuple[Name, str], Key] = {}
    priorities: dict[Name, dict[str, int]] = {}
    found = {pool: list(items) for pool, items in rewrites.items()}
    states: list[ModelState] = []
    for item in index.models:  # oldest first
        pool, name = pool_named(item, item.spec.pool_ref), item.spec.model_name
        problem = pool_problem(item, item.spec.pool_ref, index=index) or _without_target(item)
        holder = item.key if problem else holders.setdefault((pool, name), item.key)
        if holder != item.key:
            problem = refused("ModelNameInUse", f"spec.modelName: {holder}, which is older, has {quoted(name)}")
        conditions: tuple[Condition, ...] = (problem,) if problem else (accepted(),)
        if not problem:
            if item.spec.criticality is not None:
                priorities.setdefault(pool, {})[name] = PRIORITIES[item.spec.criticality]
            if item.spec.target_models:
                earlier = found.setdefault(pool, [])
                conditions = ordered(*conditions, _unused(name, earlier))
                earlier.append(_rewrite(item))
        states.append(ModelState(item.key, item.metadata.generation, conditions))
    of_pools = {pool: by_precedence(items) for pool, items in found.items()}
    return Models(tuple(sorted(states, key=lambda state: state.key)), priorities, of_pools)


def _without_target(item: InferenceModel) -> Condition | None:
    weights = [target.weight for target in item.spec.target_models]
    if weights and not any(weight is None or weight > 0 for weight in weights):
        return refused("Invalid", "spec.targetModels: the weights add up to 0, so no model stands for the name")
    return None


def _rewrite(item: InferenceModel) -> ModelRewrite:
    return ModelRewrite(
        source=str(item.key),
        targets=targets_of([(target.name, target.weight) for target in item.spec.target_models]),
        models=(item.spec.model_name,),
    )


def _unused(name: str, earlier: list[ModelRewrite]) -> Condition | None:
    owner = next((other.source for other in earlier if name in other.models), None)
    if owner is None:
        return None
    message = f"without effect: spec.targetModels, since {owner} has {quoted(name)}"
    return Condition(IGNORED_FIELDS, True, "UnsupportedValue", message)
