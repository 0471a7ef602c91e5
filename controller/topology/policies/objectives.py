"""InferenceObjectives: priorities by name, each for one pool."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.resources.policies import InferenceObjective
from controller.topology.index import Index, Name
from controller.topology.policies.references import age, pool_named, standing_of
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
    for item in sorted(index.objectives, key=age):
        first = taken.setdefault((item.metadata.namespace, item.metadata.name), item)
        verdict = standing_of(item, item.spec.pool_ref, first=first, index=index)
        if verdict.status:
            priorities.setdefault(pool_named(item, item.spec.pool_ref), {})[item.metadata.name] = item.spec.priority
        states.append(ObjectiveState(item.key, item.metadata.generation, (verdict,)))
    return Objectives(tuple(sorted(states, key=lambda item: item.key)), priorities)
