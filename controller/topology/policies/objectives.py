"""InferenceObjectives: priorities by name, each for one pool."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.resources.inference import InferencePool
from controller.resources.meta import Key
from controller.resources.policies import InferenceObjective
from controller.topology.conditions import Condition, accepted, refused
from controller.topology.index import Index, Name
from controller.topology.types import ObjectiveState


@dataclass(frozen=True)
class Objectives:
    """What the InferenceObjectives come to."""

    states: tuple[ObjectiveState, ...]
    """Sorted by key."""
    priorities: Mapping[Name, Mapping[str, int]]
    """By pool, then by the objective's name."""


def objectives_of(index: Index) -> Objectives:
    """Every InferenceObjective with its standing, and the priorities of each pool.

    The same name in both groups of the kind is one objective: the oldest counts, or the one of the current group.
    """
    taken: dict[Name, InferenceObjective] = {}
    priorities: dict[Name, dict[str, int]] = {}
    states: list[ObjectiveState] = []
    for item in sorted(index.objectives, key=_age):
        first = taken.setdefault((item.metadata.namespace, item.metadata.name), item)
        verdict = _judged(item, first=first, index=index)
        if verdict.status:
            pool = (item.metadata.namespace, item.spec.pool_ref.name)
            priorities.setdefault(pool, {})[item.metadata.name] = item.spec.priority
        states.append(ObjectiveState(item.key, item.metadata.generation, (verdict,)))
    return Objectives(tuple(sorted(states, key=lambda item: item.key)), priorities)


def _age(item: InferenceObjective) -> tuple[object, ...]:
    is_former = item.key.group != InferenceObjective.group
    return (item.metadata.creation_timestamp, item.metadata.namespace, item.metadata.name, is_former)


def _judged(item: InferenceObjective, *, first: InferenceObjective, index: Index) -> Condition:
    if first is not item:
        return refused("Conflicted", f"{first.key} of {first.key.group}, which comes first, has the name")
    reference = item.spec.pool_ref
    pool = Key(reference.group, reference.kind, item.metadata.namespace, reference.name)
    if (reference.group, reference.kind) != (InferencePool.group, InferencePool.__name__):
        found = f"{reference.kind} of {reference.group or 'the core group'}"
        message = f"spec.poolRef accepts {InferencePool.__name__} of {InferencePool.group}, found {found}"
        return refused("Invalid", message)
    if (pool.namespace, pool.name) not in index.pools:
        return refused("TargetNotFound", f"spec.poolRef: {pool} does not exist")
    return accepted()
