"""InferenceModelRewrites as users write them."""

from typing import Any

import pytest

from controller.resources.kinds import Refused, read
from controller.resources.rewrites import InferenceModelRewrite


def _read(*rules: Any, group: str = "llm-d.ai") -> object:  # rules of any shape
    document = {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "r"},
        "spec": {"poolRef": {"name": "gpu"}, "rules": list(rules)},
    }
    return read(document, index=1)


@pytest.mark.parametrize("group", ["llm-d.ai", "inference.networking.x-k8s.io"])
def test_rewrite_of_both_groups_is_read(group: str) -> None:
    found = _read(
        {"matches": [{"model": {"value": "m"}}], "targets": [{"modelRewrite": "t", "weight": 3}]}, group=group
    )

    assert isinstance(found, InferenceModelRewrite)
    assert (found.key.group, found.spec.pool_ref.kind) == (group, "InferencePool")
    assert found.spec.rules[0].matches[0].model is not None
    assert (found.spec.rules[0].matches[0].model.type, found.spec.rules[0].targets[0].weight) == ("Exact", 3)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"targets": []}, "targets"),
        ({}, "targets"),
        ({"targets": [{"weight": 1}]}, "modelRewrite"),
        ({"targets": [{"modelRewrite": "t", "weight": 1_000_001}]}, "weight"),
        ({"targets": [{"modelRewrite": "t"}], "matches": [{"model": {"value": ""}}]}, "value"),
        ({"targets": [{"modelRewrite": "t"}], "matches": [{"model": {"type": "Prefix", "value": "m"}}]}, "type"),
    ],
)
def test_mistake_names_its_field(rule: dict[str, Any], field: str) -> None:
    found = _read(rule)

    assert isinstance(found, Refused)
    assert found.problems[0].location[-1] == field
