"""InferenceModels: priorities and rewrites of pools, and what is reported of them."""

from collections.abc import Callable, Mapping

import pytest

from controller.topology.types import Topology

Build = Callable[..., Topology]

LEGACY = "apiVersion: inference.networking.x-k8s.io/v1alpha2"
POOLS = f"""
kind: InferencePool
{LEGACY}
metadata: {{name: gpu}}
spec: {{selector: {{app: llm}}, targetPortNumber: 8000}}
---
kind: InferencePool
metadata: {{name: gpu}}
spec: {{selector: {{matchLabels: {{app: llm}}}}, targetPorts: [{{number: 8000}}]}}
"""
PRESENT = "{name: gpu, group: inference.networking.k8s.io}"


def _model(name: str, model: str, *, more: str = "", pool: str = "{name: gpu}", created: str = "2026-01-01") -> str:
    return f"""
kind: InferenceModel
metadata: {{name: {name}, creationTimestamp: '{created}T00:00:00Z'}}
spec: {{modelName: {model}, poolRef: {pool}, {more}}}
"""


def _priorities(topology: Topology) -> dict[str, Mapping[str, int]]:
    return {state.pool.name: state.pool.policy.admission.models for state in topology.pools}


def _rewrites(topology: Topology, pool: str = "shop/gpu:v1alpha2") -> list[tuple[tuple[str, ...], str]]:
    (found,) = (state.pool.rewrites for state in topology.pools if state.pool.name == pool)
    return [(item.models, " ".join(f"{target.model}={target.weight}" for target in item.targets)) for item in found]


def _told(topology: Topology) -> dict[str, list[str]]:
    return {item.key.name: [condition.reason for condition in item.conditions] for item in topology.models}


@pytest.mark.parametrize(
    ("criticality", "found"),
    [
        ("criticality: Critical", {"chat": 10}),
        ("criticality: Standard", {"chat": 0}),
        ("criticality: Sheddable", {"chat": -10}),
        ("", {}),
    ],
)
def test_criticality_is_a_priority_of_the_model(build_all: Build, criticality: str, found: dict[str, int]) -> None:
    topology = build_all(POOLS, _model("a", "chat", more=criticality))

    assert _priorities(topology) == {"shop/gpu": {}, "shop/gpu:v1alpha2": found}
    assert _told(topology) == {"a": ["Accepted"]}


def test_model_is_for_the_pool_of_the_group_that_it_names(build_all: Build) -> None:
    topology = build_all(POOLS, _model("a", "chat", more="criticality: Critical", pool=PRESENT))

    assert _priorities(topology) == {"shop/gpu": {"chat": 10}, "shop/gpu:v1alpha2": {}}


def test_policy_of_the_pool_leaves_priorities_of_models_alone(build_all: Build) -> None:
    policy = """
kind: PickerPolicy
metadata: {name: p}
spec: {targetRefs: [{name: gpu}], priority: {allowClientObjective: false, maximum: 1, default: 3}}
"""

    topology = build_all(POOLS, policy, _model("a", "chat", more="criticality: Critical", pool=PRESENT))

    assert _priorities(topology)["shop/gpu"] == {"chat": 10}


def test_targets_share_the_requests_by_weight(build_all: Build) -> None:
    weighted = "targetModels: [{name: chat-1, weight: 90}, {name: chat-2, weight: 10}]"
    even = "targetModels: [{name: code-1}, {name: code-2}]"

    topology = build_all(POOLS, _model("a", "chat", more=weighted), _model("b", "code", more=even))

    assert _rewrites(topology) == [(("chat",), "chat-1=90 chat-2=10"), (("code",), "code-1=1 code-2=1")]


def test_model_without_targets_is_its_own(build_all: Build) -> None:
    assert _rewrites(build_all(POOLS, _model("a", "chat"))) == []


@pytest.mark.parametrize(("created", "winner"), [("2025-01-01", "b"), ("2026-01-01", "a"), ("2027-01-01", "a")])
def test_oldest_has_the_name(build_all: Build, created: str, winner: str) -> None:
    topology = build_all(
        POOLS,
        _model("a", "chat", more="targetModels: [{name: of-a}], criticality: Critical"),
        _model("b", "chat", more="targetModels: [{name: of-b}], criticality: Sheddable", created=created),
    )

    assert _rewrites(topology) == [(("chat",), f"of-{winner}=1")]
    assert _priorities(topology)["shop/gpu:v1alpha2"] == {"chat": 10 if winner == "a" else -10}
    assert sorted(reason for told in _told(topology).values() for reason in told) == ["Accepted", "ModelNameInUse"]
    assert _told(topology)[winner] == ["Accepted"]


def test_name_may_be_used_in_every_pool(build_all: Build) -> None:
    topology = build_all(POOLS, _model("a", "chat"), _model("b", "chat", pool=PRESENT))

    assert _told(topology) == {"a": ["Accepted"], "b": ["Accepted"]}


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("{name: lost}", "TargetNotFound"),
        ("{name: gpu, kind: Service, group: ''}", "Invalid"),
    ],
)
def test_model_without_a_pool_says_so_and_leaves_the_name(build_all: Build, pool: str, reason: str) -> None:
    topology = build_all(POOLS, _model("a", "chat", pool=pool), _model("b", "chat", created="2027-01-01"))

    assert _told(topology) == {"a": [reason], "b": ["Accepted"]}


def test_weights_of_0_reserve_nothing(build_all: Build) -> None:
    topology = build_all(POOLS, _model("a", "chat", more="targetModels: [{name: x, weight: 0}]"))

    assert (_told(topology), _rewrites(topology)) == ({"a": ["Invalid"]}, [])


def test_rewrite_of_the_present_api_goes_first(build_all: Build) -> None:
    rewrite = """
kind: InferenceModelRewrite
metadata: {name: r, creationTimestamp: '2027-01-01T00:00:00Z'}
spec:
  poolRef: {name: gpu}
  rules:
  - {matches: [{model: {value: chat}}], targets: [{modelRewrite: of-r}]}
  - {targets: [{modelRewrite: rest}]}
"""
    models = [
        _model(name, name, more=f"targetModels: [{{name: of-{name}}}]", pool=PRESENT) for name in ("chat", "code")
    ]

    topology = build_all(POOLS, rewrite, *models)

    assert _rewrites(topology, "shop/gpu") == [(("chat",), "of-r=1"), (("code",), "of-code=1"), ((), "rest=1")]
    assert _told(topology) == {"chat": ["Accepted", "UnsupportedValue"], "code": ["Accepted"]}
