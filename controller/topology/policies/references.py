"""What resources that are for one pool have in common: which pool that is, and which of two of one name counts."""

from controller.resources.inference import InferencePool
from controller.resources.meta import Key, Resource
from controller.resources.policies import PoolRef
from controller.topology.conditions import Condition, accepted, refused
from controller.topology.index import POOL_GROUPS, Index, Name, is_pool, pool_name


def age(item: Resource) -> tuple[object, ...]:
    """Sorts the oldest first. Of one age and name the current group of the kind comes before the former one."""
    is_former = item.key.group != item.group
    return (item.metadata.creation_timestamp, item.metadata.namespace, item.metadata.name, is_former)


def standing_of(item: Resource, reference: PoolRef, *, first: Resource, index: Index) -> Condition:
    """Accepted, or why not: Conflicted, Invalid, TargetNotFound. `first` is the oldest of that name in either group."""
    if first is not item:
        return refused("Conflicted", f"{first.key} of {first.key.group}, which comes first, has the name")
    return pool_problem(item, reference, index=index) or accepted()


def pool_problem(item: Resource, reference: PoolRef, *, index: Index) -> Condition | None:
    """What is wrong with the reference to a pool. Reasons: Invalid, TargetNotFound."""
    pool = _key(item, reference)
    if not is_pool(group=pool.group, kind=pool.kind):
        found = f"{pool.kind} of {pool.group or 'the core group'}"
        message = f"spec.poolRef accepts {InferencePool.kind_name()} of {' or '.join(POOL_GROUPS)}, found {found}"
        return refused("Invalid", message)
    if pool_name(pool) not in index.pools:
        return refused("TargetNotFound", f"spec.poolRef: {pool} of {pool.group} does not exist")
    return None


def pool_named(item: Resource, reference: PoolRef) -> Name:
    """The pool that a resource is for, as `index.pools` has it."""
    return pool_name(_key(item, reference))


def _key(item: Resource, reference: PoolRef) -> Key:
    return Key(reference.group, reference.kind, item.metadata.namespace, reference.name)
