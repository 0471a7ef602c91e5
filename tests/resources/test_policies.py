"""PickerPolicies and InferenceObjectives as users write them."""

from typing import Any

import pytest

from controller.resources.kinds import Refused, read
from controller.resources.policies import InferenceObjective, PickerPolicy


def _policy(**fields: Any) -> dict[str, Any]:  # a document of any shape
    spec = {"targetRefs": [{"name": "gpu"}], **fields}
    return {"apiVersion": "infergate.dev/v1alpha1", "kind": "PickerPolicy", "metadata": {"name": "p"}, "spec": spec}


def _objective(group: str, **spec: Any) -> dict[str, Any]:  # as above
    version = f"{group}/v1alpha2"
    return {"apiVersion": version, "kind": "InferenceObjective", "metadata": {"name": "o"}, "spec": spec}


def test_policy_has_a_default_for_all_but_its_target() -> None:
    policy = read(_policy(), index=1)

    assert isinstance(policy, PickerPolicy)
    assert (policy.spec.config, policy.spec.fallbacks, policy.spec.explain) == (None, None, False)
    assert policy.spec.priority.allow_client_objective
    assert policy.metadata.namespace == "default"


def test_configuration_is_kept_as_it_is() -> None:
    config = {"plugins": [{"type": "nonsense"}], "more": {"a": [1, 2.5, "x"]}}

    policy = read(_policy(config=config), index=1)

    assert isinstance(policy, PickerPolicy)
    assert policy.spec.config == config


MISTAKES = [
    ({"targetRefs": []}, "spec.targetRefs"),
    ({"targetRefs": [{"name": "a"}, {"name": "a"}]}, "spec.targetRefs[1]"),
    ({"targetRefs": [{"name": "a", "kind": "Service"}]}, "spec.targetRefs[0].kind"),
    ({"targetRefs": [{"name": "a", "namespace": "b"}]}, "spec.targetRefs[0].namespace"),
    ({"fallbacks": 3}, "spec.fallbacks"),
    ({"explain": "yes"}, "spec.explain"),
    ({"config": []}, "spec.config"),
    ({"unknownModels": "refuse"}, "spec.unknownModels"),
    ({"health": {"firstByteTimeout": "0s"}}, "spec.health.firstByteTimeout"),
    ({"health": {"scrapeInterval": "10ms"}}, "spec.health.scrapeInterval"),
    ({"health": {"scrapeInterval": "5s"}}, "spec.health.scrapeInterval"),
    ({"health": {"metricsStalenessThreshold": "1h"}}, "spec.health.metricsStalenessThreshold"),
    ({"priority": {"default": 2**31}}, "spec.priority.default"),
    ({"fairness": {"tenantBy": "Mood"}}, "spec.fairness.tenantBy"),
    ({"prority": {}}, "spec.prority"),
]


@pytest.mark.parametrize(("fields", "field"), MISTAKES, ids=[field for _, field in MISTAKES])
def test_mistake_of_a_policy_is_told_with_its_field(fields: dict[str, Any], field: str) -> None:
    found = read(_policy(**fields), index=1)

    assert isinstance(found, Refused)
    assert [problem.field for problem in found.problems] == [field]


@pytest.mark.parametrize("group", ["llm-d.ai", "inference.networking.x-k8s.io"])
def test_objective_of_either_group_keeps_its_group(group: str) -> None:
    found = read(_objective(group, poolRef={"name": "gpu"}), index=1)

    assert isinstance(found, InferenceObjective)
    assert found.key.group == group
    assert found.spec.priority == 0
    assert found.spec.pool_ref.kind == "InferencePool"


def test_objective_needs_a_pool() -> None:
    found = read(_objective("llm-d.ai", priority=1), index=1)

    assert isinstance(found, Refused)
    assert [problem.field for problem in found.problems] == ["spec.poolRef"]


def test_version_that_is_not_read_names_those_that_are() -> None:
    document = {**_objective("llm-d.ai"), "apiVersion": "llm-d.ai/v1alpha1"}

    found = read(document, index=1)

    assert isinstance(found, Refused)
    assert "accepted is llm-d.ai/v1alpha2" in found.problems[0].message
