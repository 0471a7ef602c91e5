from typing import Any

import pytest

from controller.resources.core import EndpointSlice, Namespace, Pod, Secret, Service
from controller.resources.kinds import Ignored, Refused, read
from controller.resources.problems import field_path
from controller.resources.scalars import quoted


def core(kind: str, api_version: str = "v1", **fields: Any) -> object:
    return read({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **fields}, index=1)


def test_fields_that_a_gateway_does_not_read_are_passed_over() -> None:
    service = core(
        "Service",
        spec={"clusterIP": "None", "ports": [{"port": 80, "targetPort": "web", "nodePort": 1}], "sessionAffinity": "x"},
        status={"loadBalancer": {}},
        more=1,
    )

    assert isinstance(service, Service)
    assert service.spec.cluster_ip == "None"
    assert (service.spec.ports[0].target_port, service.spec.ports[0].protocol) == ("web", "TCP")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"type": "ExternalName"}, "spec.externalName"),
        ({"type": "ExternalName", "externalName": "example.com.."}, "spec.externalName"),
        ({"type": "ExternalName", "externalName": "."}, "spec.externalName"),
        ({}, "spec.ports"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[1].name"),
        ({"ports": [{"port": 80, "targetPort": True}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "protocol": "HTTP"}]}, "spec.ports[0].protocol"),
        ({"type": "Load", "ports": [{"port": 80}]}, "spec.type"),
    ],
)
def test_service_is_refused_for(spec: dict[str, Any], field: str) -> None:
    result = core("Service", spec=spec)

    assert isinstance(result, Refused)
    assert [each.field for each in result.problems] == [field]


@pytest.mark.parametrize("name", ["example.com", "example.com."])
def test_external_name_may_end_with_a_dot(name: str) -> None:
    service = core("Service", spec={"type": "ExternalName", "externalName": name})

    assert isinstance(service, Service)
    assert service.spec.external_name == "example.com"


@pytest.mark.parametrize(
    ("type_", "address", "is_read"),
    [
        ("IPv4", "10.0.0.1", True),
        ("IPv4", "::1", False),
        ("IPv4", "010.0.0.1", False),
        ("IPv4", "10.0.0.1:80", False),
        ("IPv6", "fd00::1", True),
        ("IPv6", "fe80::1%eth0", False),
        ("FQDN", "a.example.com", True),
        ("FQDN", "*.example.com", False),
        ("FQDN", "a.example.com\n", False),
    ],
)
def test_address_of_an_endpoint_fits_its_type(type_: str, address: str, is_read: bool) -> None:
    result = core(
        "EndpointSlice", "discovery.k8s.io/v1", addressType=type_, endpoints=[{"addresses": [address]}], ports=[]
    )

    assert isinstance(result, EndpointSlice) is is_read


def test_pod_needs_labels_and_an_address_only() -> None:
    pod = core("Pod", status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})

    assert isinstance(pod, Pod)
    assert pod.status.pod_ip == "10.0.0.1"
    assert pod.status.conditions == ()
    assert isinstance(core("Pod"), Pod)


@pytest.mark.parametrize("data", [{"a": "?"}, {"a": 1}, {"a": ["hunter2"]}, ["hunter2"], "hunter2"])
def test_refused_secret_does_not_tell_its_data(data: object) -> None:
    for field in ("data", "stringData"):
        result = read({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, field: data}, index=1)

        assert "hunter2" not in str(result)
    assert isinstance(core("Secret", data=data), Refused)


def test_string_data_replaces_data() -> None:
    secret = core("Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "ü"})

    assert isinstance(secret, Secret)
    assert secret.data == {"a": b"a", "b": "ü".encode()}
    assert "YQ" not in repr(secret)


def test_namespace_has_no_namespace() -> None:
    result = read({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}, index=1)

    assert isinstance(result, Namespace)
    assert str(result.key) == "Namespace a"


@pytest.mark.parametrize("api_version", ["apps/v1", "networking.istio.io/v1", "serving.knative.dev/v1", "x/y/z"])
def test_kinds_of_others_are_ignored_whatever_their_name(api_version: str) -> None:
    assert core("Gateway", api_version) == Ignored(f"{api_version} Gateway")


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        [],
        {},
        {"apiVersion": 1, "kind": 2},
        {"apiVersion": "v1", "kind": "Pod", "metadata": []},
        {"apiVersion": "v1", "kind": ""},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {1: 2}}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "x"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": {}}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": "x"},
        {"apiVersion": "v" * 10_000, "kind": "k" * 10_000},
    ],
)
def test_any_document_has_an_answer(document: object) -> None:
    result = read(document, index=1)

    assert isinstance(result, Refused)
    assert all(len(each.message) < 600 and len(each.field) < 250 for each in result.problems)
    assert len(result.subject) < 250


def test_problems_of_one_document_are_bounded() -> None:
    result = core("ConfigMap", data={str(number): number for number in range(1000)})

    assert isinstance(result, Refused)
    assert len(result.problems) == 21
    assert result.problems[-1].message == "980 more problems in this document"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ((), ""),
        (("spec", "rules", 0, "backendRefs", 1, "port"), "spec.rules[0].backendRefs[1].port"),
        (("data", "tls.key"), "data[tls.key]"),
        (("metadata", "labels", "a/b"), "metadata.labels[a/b]"),
        (("a\nb",), '["a\\nb"]'),
    ],
)
def test_field_path_is_spelt_as_in_kubernetes(location: tuple[str | int, ...], path: str) -> None:
    assert field_path(location) == path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ('a"b', r'"a\"b"'),
        ("a\nb", r'"a\nb"'),
        ("a" * 100, f'"{"a" * 80}…" (100 characters)'),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        ({}, "a mapping"),
        ([], "a list"),
    ],
)
def test_value_is_shown_in_one_line(value: object, text: str) -> None:
    assert quoted(value) == text
