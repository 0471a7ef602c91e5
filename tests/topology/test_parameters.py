"""GatewayParameters of classes and Gateways."""

from collections.abc import Callable
from typing import Any

import pytest

from controller.resources.parameters import NO_PARAMETERS, GatewayParametersSpec
from controller.topology.parameters import fields_given, max_body_size, preferred, workers
from controller.topology.types import Condition, GatewayState, Topology

Build = Callable[..., Topology]

CLASS = """
kind: GatewayClass
metadata: {name: infergate}
spec:
  controllerName: infergate.dev/gateway-controller
  parametersRef: {group: infergate.dev, kind: GatewayParameters, name: all, namespace: shop}
"""
ALL = """
kind: GatewayParameters
metadata: {name: all}
spec: {replicas: 3, service: {type: NodePort, annotations: {a: b}}}
"""
OWN = """
kind: GatewayParameters
metadata: {name: own}
spec: {service: {type: ClusterIP}, nginx: {maxBodySize: 1Mi}}
"""


def _gateway(infrastructure: str = "{}") -> str:
    return f"""
kind: Gateway
metadata: {{name: web, uid: u-1}}
spec:
  gatewayClassName: infergate
  infrastructure: {infrastructure}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def _own(kind: str = "GatewayParameters", name: str = "own") -> str:
    return _gateway(f"{{parametersRef: {{group: infergate.dev, kind: {kind}, name: {name}}}}}")


def _only(topology: Topology) -> GatewayState:
    (gateway,) = topology.gateways
    return gateway


def _accepted(conditions: tuple[Condition, ...]) -> tuple[bool | None, str, str]:
    condition = next(item for item in conditions if item.type == "Accepted")
    return condition.status, condition.reason, condition.message


def test_gateway_has_the_parameters_of_its_class(build_all: Build) -> None:
    parameters = _only(build_all(CLASS, ALL, _gateway())).data_plane.parameters

    assert parameters.replicas == 3


def test_parameters_of_a_gateway_go_before_those_of_its_class(build_all: Build) -> None:
    gateway = _only(build_all(CLASS, ALL, OWN, _own()))
    parameters = gateway.data_plane.parameters

    assert gateway.serves
    assert parameters.replicas == 3
    assert parameters.service is not None
    assert (parameters.service.type, parameters.service.annotations) == ("ClusterIP", {"a": "b"})


BROKEN = [
    (_own(name="gone"), "spec.infrastructure.parametersRef: GatewayParameters shop/gone does not exist"),
    (
        _own(kind="ConfigMap"),
        "spec.infrastructure.parametersRef accepts GatewayParameters.infergate.dev, found ConfigMap.infergate.dev",
    ),
]


@pytest.mark.parametrize(("gateway", "message"), BROKEN)
def test_broken_reference_refuses_the_gateway(build_all: Build, gateway: str, message: str) -> None:
    found = _only(build_all(OWN, gateway))

    assert _accepted(found.conditions) == (False, "InvalidParameters", message)
    assert not found.serves


CLASSES = [
    (CLASS, "spec.parametersRef: GatewayParameters shop/all does not exist"),
    (
        CLASS.replace(", namespace: shop", ""),
        "spec.parametersRef.namespace is missing, GatewayParameters are in one",
    ),
    (
        CLASS.replace("kind: GatewayParameters", "kind: ConfigMap"),
        "spec.parametersRef accepts GatewayParameters.infergate.dev, found ConfigMap.infergate.dev",
    ),
]


@pytest.mark.parametrize(("of_class", "message"), CLASSES)
def test_broken_reference_refuses_the_class_and_its_gateways(build_all: Build, of_class: str, message: str) -> None:
    topology = build_all(of_class, _gateway())

    assert _accepted(topology.classes[0].conditions) == (False, "InvalidParameters", message)
    assert _accepted(_only(topology).conditions)[:2] == (False, "InvalidParameters")


def test_infrastructure_is_kept_for_the_data_plane(build_all: Build) -> None:
    found = _only(build_all(_gateway("{labels: {b: c, a: d}, annotations: {e: f}}"))).data_plane

    assert (found.uid, found.class_name) == ("u-1", "infergate")
    assert found.labels == (("a", "d"), ("b", "c"))
    assert found.annotations == (("e", "f"),)


def _spec(**fields: Any) -> GatewayParametersSpec:  # any: a document's fields
    return GatewayParametersSpec.model_validate(fields)


def test_fields_of_the_first_go_before_those_of_the_second() -> None:
    first = _spec(replicas=3, service={"type": "ClusterIP"}, podLabels={"a": "1"})
    second = _spec(replicas=2, image="x", service={"type": "NodePort", "annotations": {"b": "c"}}, podLabels={"d": "e"})

    assert preferred(first, second) == _spec(
        replicas=3, image="x", service={"type": "ClusterIP", "annotations": {"b": "c"}}, podLabels={"a": "1"}
    )


def test_autoscaling_is_taken_as_a_whole() -> None:
    first = _spec(autoscaling={"maxReplicas": 4})
    second = _spec(autoscaling={"minReplicas": 9, "maxReplicas": 10, "memoryUtilization": 50})

    assert preferred(first, second).autoscaling == first.autoscaling


def test_given_fields_are_named_as_they_are_written() -> None:
    spec = _spec(nginx={"maxBodySize": "1Mi", "workers": 2}, gracePeriod="1m", replicas=1)

    assert fields_given(spec) == ("gracePeriod", "nginx.maxBodySize", "nginx.workers", "replicas")
    assert max_body_size(spec) == 2**20
    assert max_body_size(NO_PARAMETERS) is None


WORKERS = [
    ({}, 2),
    ({"nginx": {"workers": 5}, "resources": {"nginx": {"limits": {"cpu": "1"}}}}, 5),
    ({"resources": {"nginx": {"limits": {"cpu": "2500m"}}}}, 3),
    ({"resources": {"nginx": {"limits": {"cpu": "100m"}}}}, 1),
    ({"resources": {"nginx": {"limits": {"cpu": "100k"}}}}, 512),
    ({"resources": {"nginx": {"limits": {"memory": "1Gi"}}}}, 2),
    ({"resources": {"picker": {"limits": {"cpu": "7"}}}}, 2),
]


@pytest.mark.parametrize(("fields", "count"), WORKERS)
def test_workers_follow_the_limit_of_cpu(fields: dict[str, Any], count: int) -> None:  # any: as above
    assert workers(_spec(**fields)) == count
