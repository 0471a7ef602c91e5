"""InferenceModelRewrites: what pools rewrite, in which order, and what is reported of them."""

from collections.abc import Callable

import pytest

from controller.pools import ModelRewrite
from controller.topology.types import Topology

Build = Callable[..., Topology]

POOL = """
kind: InferencePool
metadata: {name: gpu}
spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
"""
FORMER = "inference.networking.x-k8s.io/v1alpha2"


def _rewrite(
    *rules: str, name: str = "a", pool: str = "{name: gpu}", more: str = "", created: str = "2026-01-01", note: str = ""
) -> str:
    return f"""
kind: InferenceModelRewrite
{more}
metadata: {{name: {name}, creationTimestamp: '{created}T00:00:00Z', annotations: {{{note}}}}}
spec: {{poolRef: {pool}, rules: [{", ".join(rules)}]}}
"""


def _rule(targets: str, *models: str) -> str:
    matches = ", ".join(f"{{model: {{value: {model}}}}}" for model in models)
    return f"{{matches: [{matches}], targets: [{targets}]}}"


def _found(topology: Topology) -> tuple[ModelRewrite, ...]:
    (state,) = topology.pools
    return state.pool.rewrites


def _told(topology: Topology) -> list[tuple[str, str, str]]:
    return [(item.type, item.reason, item.message) for state in topology.rewrites for item in state.conditions]


def _weights(topology: Topology) -> list[tuple[str, int]]:
    return [(target.model, target.weight) for item in _found(topology) for target in item.targets]


def test_rewrite_is_its_pools(build_all: Build) -> None:
    topology = build_all(POOL, _rewrite(_rule("{modelRewrite: b, weight: 9}, {modelRewrite: c, weight: 1}", "m")))

    (item,) = _found(topology)
    assert (item.models, item.sticky_header) == (("m",), "")
    assert _weights(topology) == [("b", 9), ("c", 1)]
    assert _told(topology) == [("Accepted", "Accepted", "")]


def test_exact_match_comes_before_a_generic_one(build_all: Build) -> None:
    generic = _rewrite(_rule("{modelRewrite: old}"), created="2025-01-01")

    topology = build_all(POOL, generic, _rewrite(_rule("{modelRewrite: new}", "m"), name="b"))

    assert [(item.models, item.targets[0].model) for item in _found(topology)] == [(("m",), "new"), ((), "old")]


def test_oldest_resource_then_first_rule_has_a_model(build_all: Build) -> None:
    young = _rewrite(_rule("{modelRewrite: young}", "m", "n"), created="2026-02-01", name="a")
    old = _rewrite(_rule("{modelRewrite: first}", "m"), _rule("{modelRewrite: second}", "m"), name="b")

    topology = build_all(POOL, young, old)

    assert [(item.models, item.targets[0].model) for item in _found(topology)] == [(("m",), "first"), (("n",), "young")]
    assert [message for kind, _, message in _told(topology) if kind.endswith("IgnoredFields")] == [
        'without effect: spec.rules[0] for "m", which InferenceModelRewrite shop/b, rule 0 has',
        'without effect: spec.rules[1] for "m", which InferenceModelRewrite shop/b, rule 0 has',
    ]


def test_second_rule_for_every_model_is_without_effect(build_all: Build) -> None:
    topology = build_all(POOL, _rewrite(_rule("{modelRewrite: b}"), "{targets: [{modelRewrite: c}]}"))

    assert [item.targets[0].model for item in _found(topology)] == ["b"]
    assert "spec.rules[1], since InferenceModelRewrite shop/a, rule 0 is" in _told(topology)[1][2]


def test_match_without_a_model_is_for_every_model(build_all: Build) -> None:
    topology = build_all(POOL, _rewrite("{matches: [{}, {model: {value: m}}], targets: [{modelRewrite: b}]}"))

    assert [item.models for item in _found(topology)] == [()]


@pytest.mark.parametrize(
    ("targets", "weights", "words"),
    [
        ("{modelRewrite: b}, {modelRewrite: c}", [("b", 1), ("c", 1)], "same share: spec.rules[0]"),
        ("{modelRewrite: b, weight: 0}, {modelRewrite: c}", [("b", 1), ("c", 1)], "targets[0].weight, since all"),
        ("{modelRewrite: b, weight: 3}, {modelRewrite: c}", [("b", 3), ("c", 0)], "targets[1], which has no weight"),
        ("{modelRewrite: b, weight: 0}", [("b", 1)], ""),
    ],
)
def test_targets_without_weights_share_alike_unless_others_have_one(
    build_all: Build, targets: str, weights: list[tuple[str, int]], words: str
) -> None:
    topology = build_all(POOL, _rewrite(_rule(targets, "m")))

    assert _weights(topology) == weights
    assert words in " ".join(message for _, _, message in _told(topology))


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("{name: lost}", "TargetNotFound"),
        ("{name: gpu, kind: Service, group: ''}", "Invalid"),
        ("{name: gpu, group: inference.networking.x-k8s.io}", "TargetNotFound"),
    ],
)
def test_rewrite_without_a_pool_says_so(build_all: Build, pool: str, reason: str) -> None:
    topology = build_all(POOL, _rewrite(_rule("{modelRewrite: b}"), pool=pool))

    assert [reason for _, reason, _ in _told(topology)] == [reason]
    assert _found(topology) == ()


def test_name_in_both_groups_is_one_rewrite(build_all: Build) -> None:
    former = _rewrite(_rule("{modelRewrite: former}"), more=f"apiVersion: {FORMER}")

    topology = build_all(POOL, former, _rewrite(_rule("{modelRewrite: current}")))

    assert [item.targets[0].model for item in _found(topology)] == ["current"]
    assert sorted(reason for _, reason, _ in _told(topology)) == ["Accepted", "Conflicted"]


def test_annotation_names_the_header_that_keeps_users(build_all: Build) -> None:
    note = "infergate.dev/sticky-header: X-User"

    assert [
        item.sticky_header for item in _found(build_all(POOL, _rewrite(_rule("{modelRewrite: b}"), note=note)))
    ] == ["x-user"]


def test_annotation_that_names_no_header_is_a_condition(build_all: Build) -> None:
    topology = build_all(POOL, _rewrite(_rule("{modelRewrite: b}"), note="infergate.dev/sticky-header: 'a b'"))

    assert [item.sticky_header for item in _found(topology)] == [""]
    assert [kind for kind, _, _ in _told(topology)] == ["Accepted", "infergate.dev/InvalidAnnotations"]
