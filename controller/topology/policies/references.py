"""What resources that are for one pool have in common: which pool that is, and which of two of one name counts."""

from controller.resources.inference import InferencePool
from controller.resources.meta import Key, Resource
from controller.resources.policies import PoolRef
from controller.topology.conditions import Condition, accepted, refused
from controller.topology.index import Index


def age(item: Resource) -> tuple[object, ...]:
    """Sorts the oldest first. Of one age and name the current group of the kind comes before the former one."""
    is_former = item.key.group != item.group
    return (item.metadata.creation_timestamp, item.metadata.namespace, item.metadata.name, is_former)


def standing_of(item: Resource, reference: PoolRef, *, first: Resource, index: Index) -> Condition:
    """Accepted, or why not: Conflicted, Invalid, TargetNotFound. `first` is the oldest of that name in either group."""
    if first is not item:
        return refused("Conflicted", f"{first.key} of {first.key.group}, which comes first, has the name")
    pool = Key(reference.group, reference.kind, item.metadata.namespace, reference.name)
    if (reference.group, reference.kind) != (InferencePool.group, InferencePool.__name__):
        found = f"{reference.kind} of {reference.group or 'the core group'}"
        message = f"spec.poolRef accepts {InferencePool.__name__} of {InferencePool.group}, found {found}"
        return refused("Invalid", message)
    if (pool.namespace, pool.name) not in index.pools:
        return refused("TargetNotFound", f"spec.poolRef: {pool} does not exist")
    return accepted()
