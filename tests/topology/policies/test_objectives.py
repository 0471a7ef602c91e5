"""InferenceObjectives: priorities of pools, and what is reported of them."""

from collections.abc import Callable, Mapping

import pytest

from controller.topology.types import Topology

Build = Callable[..., Topology]

POOLS = """
kind: InferencePool
metadata: {name: gpu}
spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
---
kind: InferencePool
metadata: {name: cpu}
spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
"""
FORMER = "inference.networking.x-k8s.io/v1alpha2"


def _objective(
    name: str, priority: int, *, pool: str = "{name: gpu}", more: str = "", created: str = "2026-01-01"
) -> str:
    return f"""
kind: InferenceObjective
{more}
metadata: {{name: {name}, creationTimestamp: '{created}T00:00:00Z'}}
spec: {{priority: {priority}, poolRef: {pool}}}
"""


def _policy(priority: str) -> str:
    return f"""
kind: PickerPolicy
metadata: {{name: chat}}
spec: {{targetRefs: [{{name: gpu}}], priority: {priority}}}
"""


def _objectives(topology: Topology) -> dict[str, Mapping[str, int]]:
    return {state.key.name: state.pool.policy.admission.objectives for state in topology.pools}


def _verdicts(topology: Topology) -> dict[str, str]:
    return {f"{item.key.group} {item.key.name}": item.conditions[0].reason for item in topology.objectives}


def test_objective_counts_for_its_pool_only(build_all: Build) -> None:
    topology = build_all(POOLS, _objective("urgent", 5), _objective("batch", -1, pool="{name: cpu}"))

    assert _objectives(topology) == {"gpu": {"urgent": 5}, "cpu": {"batch": -1}}


def test_objectives_of_both_groups_count(build_all: Build) -> None:
    topology = build_all(POOLS, _objective("a", 1), _objective("b", 2, more=f"apiVersion: {FORMER}"))

    assert _objectives(topology)["gpu"] == {"a": 1, "b": 2}
    assert set(_verdicts(topology).values()) == {"Accepted"}


@pytest.mark.parametrize(("created", "priority"), [("2025-01-01", 2), ("2026-01-01", 1), ("2027-01-01", 1)])
def test_name_in_both_groups_is_the_oldest_or_the_current_one(build_all: Build, created: str, priority: int) -> None:
    former = _objective("a", 2, more=f"apiVersion: {FORMER}", created=created)

    topology = build_all(POOLS, _objective("a", 1), former)

    assert _objectives(topology)["gpu"] == {"a": priority}
    assert sorted(_verdicts(topology).values()) == ["Accepted", "Conflicted"]


def test_objective_counts_for_the_pool_of_the_group_that_it_names(build_all: Build) -> None:
    legacy = f"""
kind: InferencePool
apiVersion: {FORMER}
metadata: {{name: gpu}}
spec: {{selector: {{app: llm}}, targetPortNumber: 8000}}
"""
    reference = "{name: gpu, group: inference.networking.x-k8s.io}"

    topology = build_all(POOLS, legacy, _objective("a", 1), _objective("b", 2, pool=reference))

    found = {state.pool.name: dict(state.pool.policy.admission.objectives) for state in topology.pools}
    assert found == {"shop/cpu": {}, "shop/gpu": {"a": 1}, "shop/gpu:v1alpha2": {"b": 2}}


BAD_POOLS = [
    ("{name: lost}", "TargetNotFound"),
    ("{name: gpu, kind: Service, group: ''}", "Invalid"),
    ("{name: gpu, group: inference.networking.x-k8s.io}", "TargetNotFound"),
]


@pytest.mark.parametrize(("pool", "reason"), BAD_POOLS)
def test_objective_without_a_pool_says_so(build_all: Build, pool: str, reason: str) -> None:
    topology = build_all(POOLS, _objective("a", 1, pool=pool))

    assert _verdicts(topology) == {"llm-d.ai a": reason}
    assert _objectives(topology) == {"gpu": {}, "cpu": {}}


CLAIMS = [
    ("{}", {"batch": -5, "urgent": 50}),
    ("{maximum: 10}", {"batch": -5, "urgent": 10}),
    ("{maximum: -10}", {"batch": -10, "urgent": -10}),
    ("{allowClientObjective: false}", {}),
]


@pytest.mark.parametrize(("priority", "expected"), CLAIMS)
def test_policy_limits_what_clients_claim(build_all: Build, priority: str, expected: dict[str, int]) -> None:
    topology = build_all(POOLS, _objective("urgent", 50), _objective("batch", -5), _policy(priority))

    assert _objectives(topology)["gpu"] == expected


def test_objectives_stay_when_the_policy_has_a_mistake(build_all: Build) -> None:
    broken = _policy("{}").replace("priority: {}", "config: {plugins: [{type: nope}]}")

    assert _objectives(build_all(POOLS, _objective("urgent", 50), broken))["gpu"] == {"urgent": 50}
