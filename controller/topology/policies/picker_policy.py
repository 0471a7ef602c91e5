"""PickerPolicies: to which pools they apply, and what is wrong with them.

A pool has one policy, the oldest that names it. That one keeps its claim while it has a mistake, so that a slip of the
pen does not hand the pool to another policy: the pool is picked as if it had none.

Source: Gateway API, policy attachment and PolicyStatus.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from controller.plugins.catalogue import Catalogue, parameters_of
from controller.plugins.parameters import Picker
from controller.plugins.parse import PickerConfig, parse
from controller.plugins.types import (
    DEFAULT_ADMISSION,
    DEFAULT_HEALTH,
    DEFAULT_POLICY,
    Admission,
    AppliedPolicy,
    Health,
)
from controller.resources.meta import Key
from controller.resources.policies import HealthSpec, PickerPolicy
from controller.resources.scalars import Duration, seconds
from controller.topology.conditions import Condition, accepted, ignored, merged, ordered, refused
from controller.topology.index import Index, Name, pool_name
from controller.topology.types import PolicyState

_NONE: Final[Mapping[str, int]] = MappingProxyType({})
MOST_PROBLEMS: Final = 10
"""Problems of one policy that are told: more do not help to repair it."""


@dataclass(frozen=True)
class Policies:
    """What the PickerPolicies come to."""

    states: tuple[PolicyState, ...]
    """Sorted by key."""
    applied: Mapping[Name, "Granted"]
    """By the pool that a policy without a mistake applies to."""


@dataclass(frozen=True)
class Granted:
    """A policy without a mistake."""

    policy: PickerPolicy
    config: PickerConfig
    fallbacks: int


def policies_of(index: Index, *, catalogue: Catalogue) -> Policies:
    """Every PickerPolicy with its standing, and those that apply."""
    holders: dict[Name, Key] = {}
    applied: dict[Name, Granted] = {}
    states: list[PolicyState] = []
    for policy in index.policies:  # oldest first
        verdict = _judged(policy, catalogue=catalogue)
        ancestors: list[tuple[Key, tuple[Condition, ...]]] = []
        for target in policy.spec.target_refs:
            key = Key(target.group, target.kind, policy.metadata.namespace, target.name)
            pool = pool_name(key)
            if pool not in index.pools:
                ancestors.append((key, (refused("TargetNotFound", f"{key} does not exist"),)))
                continue
            holder = holders.setdefault(pool, policy.key)
            if holder != policy.key:
                message = f"{holder}, which is older, has {key} already"
                ancestors.append((key, (refused("Conflicted", message),)))
            elif isinstance(verdict, Condition):
                ancestors.append((key, (verdict,)))
            else:
                applied[pool] = verdict
                unused = ignored(_without_effect(verdict))
                ancestors.append((key, ordered(accepted(), unused)))
        states.append(PolicyState(policy.key, policy.metadata.generation, tuple(ancestors)))
    return Policies(tuple(sorted(states, key=lambda item: item.key)), applied)


def applied_policy(
    granted: Granted | None, *, objectives: Mapping[str, int], models: Mapping[str, int] = _NONE
) -> AppliedPolicy:
    """What the picker does for a pool. objectives and models: priorities of the pool's InferenceObjectives, and of
    models by the pool's InferenceModels, by name."""
    models = dict(sorted(models.items()))
    found = _without_policy(objectives, models) if granted is None else _with_policy(granted, objectives, models)
    return DEFAULT_POLICY if found == DEFAULT_POLICY else found


def _without_policy(objectives: Mapping[str, int], models: dict[str, int]) -> AppliedPolicy:
    return AppliedPolicy(admission=Admission(objectives=dict(sorted(objectives.items())), models=models))


def _with_policy(granted: Granted, objectives: Mapping[str, int], models: dict[str, int]) -> AppliedPolicy:
    spec = granted.policy.spec
    claims = sorted(objectives.items()) if spec.priority.allow_client_objective else ()
    most = spec.priority.maximum
    admission = Admission(
        flow_control=granted.config.flow_control,
        objectives={name: priority if most is None else min(priority, most) for name, priority in claims},
        models=models,
        default_priority=spec.priority.default,
        trust_fairness_id=spec.fairness.allow_client_id,
        trust_deadline=spec.priority.allow_client_deadline,
        tenant_by="address" if spec.fairness.tenant_by == "Address" else DEFAULT_ADMISSION.tenant_by,
    )
    return AppliedPolicy(
        scheduling=granted.config.scheduling,
        admission=DEFAULT_ADMISSION if admission == DEFAULT_ADMISSION else admission,
        fallbacks=granted.fallbacks,
        explain=spec.explain,
        usage=spec.usage,
        refuse_unknown_models=spec.unknown_models == "Refuse",
        health=_health(spec.health),
    )


def _judged(policy: PickerPolicy, *, catalogue: Catalogue) -> Granted | Condition:
    config = parse(policy.spec.config, catalogue=catalogue)
    if isinstance(config, PickerConfig):
        return Granted(policy, config, _fallbacks(policy, config, catalogue=catalogue))
    told = [str(problem.below("spec", "config")) for problem in config[:MOST_PROBLEMS]]
    if len(config) > MOST_PROBLEMS:
        told.append(f"{len(config) - MOST_PROBLEMS} more problems")
    return merged([refused("Invalid", message) for message in told])


def _without_effect(granted: Granted) -> Iterator[str]:
    """Fields that are read and that the picker does nothing about yet."""
    yield from (f"config.{field}" for field in granted.config.without_effect)


def _fallbacks(policy: PickerPolicy, config: PickerConfig, *, catalogue: Catalogue) -> int:
    """What the policy says, or what the configuration's picker does."""
    if policy.spec.fallbacks is not None:
        return policy.spec.fallbacks
    if config.scheduling is None:
        return 0
    parameters = parameters_of(config.scheduling.picker, catalogue=catalogue)
    return parameters.max_num_of_endpoints - 1 if isinstance(parameters, Picker) else 0


def _health(spec: HealthSpec) -> Health:
    found = Health(
        first_byte_timeout=_seconds(spec.first_byte_timeout),
        scrape_interval=_seconds(spec.scrape_interval),
        metrics_staleness_threshold=_seconds(spec.metrics_staleness_threshold),
    )
    return DEFAULT_HEALTH if found == DEFAULT_HEALTH else found


def _seconds(duration: Duration | None) -> float | None:
    return None if duration is None else seconds(duration)
