"""InferencePool and InferenceModel v1alpha2 as users write them."""

from typing import Any

import pytest

from controller.resources.inference import InferencePool
from controller.resources.kinds import Refused, read
from controller.resources.legacy import InferenceModel, LegacyInferencePool


def _document(kind: str, **spec: Any) -> dict[str, Any]:  # a document of any shape
    version = "inference.networking.x-k8s.io/v1alpha2"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "llm"}, "spec": spec}


def _pool(**spec: Any) -> dict[str, Any]:  # as above
    return _document("InferencePool", **{"selector": {"app": "llm"}, "targetPortNumber": 8000, **spec})


def _model(**spec: Any) -> dict[str, Any]:  # as above
    return _document("InferenceModel", **{"modelName": "chat", "poolRef": {"name": "llm"}, **spec})


def test_pool_is_one_of_version_1_in_its_own_group() -> None:
    found = read(_pool(extensionRef={"name": "epp", "failureMode": "FailOpen"}), index=1)

    assert isinstance(found, LegacyInferencePool)
    pool = found.in_present_shape()
    assert isinstance(pool, InferencePool)
    assert pool.key == found.key
    assert pool.spec.selector.match_labels == {"app": "llm"}
    assert [port.number for port in pool.spec.target_ports] == [8000]
    picker = pool.spec.endpoint_picker_ref
    assert picker is not None
    assert picker.port is not None
    assert (picker.kind, picker.name, picker.port.number, picker.failure_mode) == ("Service", "epp", 9002, "FailOpen")


def test_pool_may_go_without_a_picker() -> None:
    found = read(_pool(), index=1)

    assert isinstance(found, LegacyInferencePool)
    assert found.in_present_shape().spec.endpoint_picker_ref is None


def test_model_has_a_default_for_all_but_its_name_and_its_pool() -> None:
    found = read(_model(), index=1)

    assert isinstance(found, InferenceModel)
    assert (found.spec.criticality, found.spec.target_models) == (None, ())
    assert (found.spec.pool_ref.group, found.spec.pool_ref.kind) == ("inference.networking.x-k8s.io", "InferencePool")


MISTAKES = [
    (_pool(selector={}), "spec.selector"),
    (_pool(selector={"matchLabels": {"app": "llm"}}), "spec.selector.matchLabels"),
    (_pool(targetPortNumber=0), "spec.targetPortNumber"),
    (_pool(extensionRef={}), "spec.extensionRef.name"),
    (_model(modelName=""), "spec.modelName"),
    (_model(modelName="x" * 257), "spec.modelName"),
    (_model(criticality="critical"), "spec.criticality"),
    (_model(poolRef={}), "spec.poolRef.name"),
    (_model(targetModels=[{"name": "a", "weight": 1}, {"name": "b"}]), "spec.targetModels[1].weight"),
    (_model(targetModels=[{"name": "a", "weight": -1}]), "spec.targetModels[0].weight"),
    (_model(targetModels=[{"name": "a"}] * 11), "spec.targetModels"),
]


@pytest.mark.parametrize(("document", "field"), MISTAKES, ids=[f"{field}-{n}" for n, (_, field) in enumerate(MISTAKES)])
def test_mistake_is_told_with_its_field(document: dict[str, Any], field: str) -> None:
    found = read(document, index=1)

    assert isinstance(found, Refused)
    assert [problem.field for problem in found.problems] == [field]


def test_criticality_that_there_is_not_is_told_with_those_that_there_are() -> None:
    found = read(_model(criticality=1), index=1)

    assert isinstance(found, Refused)
    assert [problem.message for problem in found.problems] == [
        'found 1, accepted is "Critical", "Standard" or "Sheddable"'
    ]
