"""GatewayParameters as users write them."""

from typing import Any

import pytest

from controller.resources.kinds import Refused, read
from controller.resources.parameters import (
    NO_PARAMETERS,
    GatewayParameters,
    GatewayParametersSpec,
    amount,
)


def _document(**spec: Any) -> dict[str, Any]:  # a document of any shape
    return {
        "apiVersion": "infergate.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "p"},
        "spec": spec,
    }


def _spec(**fields: Any) -> GatewayParametersSpec:  # as above
    found = read(_document(**fields), index=1)
    assert isinstance(found, GatewayParameters)
    return found.spec


def test_parameters_need_no_field() -> None:
    assert _spec() == NO_PARAMETERS


QUANTITIES = [("500m", 0.5), ("2", 2), (2, 2), ("1.5", 1.5), ("512Mi", 512 * 2**20), ("1G", 1e9), ("1Ki", 1024)]


@pytest.mark.parametrize(("written", "value"), QUANTITIES)
def test_quantity_has_its_value(written: object, value: float) -> None:
    resources = _spec(resources={"nginx": {"limits": {"cpu": written}}}).resources
    assert resources is not None
    assert resources.nginx is not None
    assert amount(resources.nginx.limits["cpu"]) == value


MISTAKES = [
    ({"replicas": 0}, "spec.replicas"),
    ({"replicas": "2"}, "spec.replicas"),
    ({"autoscaling": {}}, "spec.autoscaling.maxReplicas"),
    ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "spec.autoscaling.minReplicas"),
    ({"image": "a b"}, "spec.image"),
    ({"resources": {"nginx": {"limits": {"memory": "1 GB"}}}}, "spec.resources.nginx.limits.memory"),
    ({"resources": {"nginx": {"limits": {"cpu": 0.5}}}}, "spec.resources.nginx.limits.cpu"),
    ({"resources": {"sidecar": {}}}, "spec.resources.sidecar"),
    ({"podLabels": {"a b": "c"}}, "spec.podLabels.a b"),
    ({"tolerations": [{"effect": "Never"}]}, "spec.tolerations[0].effect"),
    ({"topologySpreadConstraints": [{}]}, "spec.topologySpreadConstraints[0].topologyKey"),
    ({"gracePeriod": "1s"}, "spec.gracePeriod"),
    ({"service": {"type": "ExternalName"}}, "spec.service.type"),
    ({"service": {"type": "ClusterIP", "loadBalancerClass": "a"}}, "spec.service.loadBalancerClass"),
    ({"service": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}}, "spec.service.externalTrafficPolicy"),
    ({"nginx": {"maxBodySize": "12"}}, "spec.nginx.maxBodySize"),
    ({"nginx": {"workers": 0}}, "spec.nginx.workers"),
]


@pytest.mark.parametrize(("fields", "field"), MISTAKES, ids=[field for _, field in MISTAKES])
def test_mistake_of_parameters_is_told_with_its_field(fields: dict[str, Any], field: str) -> None:
    found = read(_document(**fields), index=1)

    assert isinstance(found, Refused)
    assert [problem.field.replace("[", ".").replace("]", "") for problem in found.problems] == [
        field.replace("[", ".").replace("]", "")
    ]
