"""Routes of connections: what each version takes."""

from typing import Any

import pytest

from controller.resources.kinds import Refused, read
from controller.resources.meta import Resource
from controller.resources.stream_routes import StreamRoute

RULE = {"backendRefs": [{"name": "db", "port": 5432}]}

ACCEPTED: list[tuple[str, str, dict[str, Any]]] = [  # Any: a spec of any shape
    ("TLSRoute", "v1", {"hostnames": ["a.example"], "rules": [RULE]}),
    ("TLSRoute", "v1alpha3", {"hostnames": ["*.example"], "rules": [RULE]}),
    ("TLSRoute", "v1alpha2", {"rules": [RULE, RULE]}),
    ("TCPRoute", "v1", {"rules": [RULE]}),
    ("TCPRoute", "v1alpha2", {"rules": [{**RULE, "name": "a"}, {**RULE, "name": "b"}]}),
    ("UDPRoute", "v1", {"rules": [{"backendRefs": [{"name": "db", "port": 53, "weight": 0}]}]}),
    ("UDPRoute", "v1alpha2", {"rules": [RULE]}),
]
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [  # Any: as above
    ("TLSRoute", "v1", {"rules": [RULE]}, "spec.hostnames"),
    ("TLSRoute", "v1", {"hostnames": ["a.example"], "rules": [RULE, RULE]}, "spec.rules"),
    ("TLSRoute", "v1alpha3", {"rules": [RULE]}, "spec.hostnames"),
    ("TCPRoute", "v1", {"rules": [RULE, RULE]}, "spec.rules"),
    ("TCPRoute", "v1", {}, "spec.rules"),
    ("TCPRoute", "v1", {"rules": [{}]}, "spec.rules[0].backendRefs"),
    ("TCPRoute", "v1", {"hostnames": ["a.example"], "rules": [RULE]}, "spec.hostnames"),
    ("TCPRoute", "v1alpha2", {"rules": [{**RULE, "name": "a"}] * 2}, "spec.rules[1].name"),
    ("UDPRoute", "v1alpha3", {"rules": [RULE]}, "apiVersion"),
]


def _read(kind: str, version: str, spec: dict[str, Any]) -> object:  # Any: as above
    return read(
        {
            "apiVersion": f"gateway.networking.k8s.io/{version}",
            "kind": kind,
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": spec,
        },
        index=1,
    )


@pytest.mark.parametrize(("kind", "version", "spec"), ACCEPTED)
def test_route_of_a_served_version_is_read(kind: str, version: str, spec: dict[str, Any]) -> None:  # Any: as above
    result = _read(kind, version, spec)

    assert isinstance(result, Resource)
    assert isinstance(result, StreamRoute)
    assert result.key.kind == kind


@pytest.mark.parametrize(("kind", "version", "spec", "field"), REFUSED)
def test_route_with_a_mistake_is_refused_for_its_field(
    kind: str,
    version: str,
    spec: dict[str, Any],  # Any: as above
    field: str,
) -> None:
    result = _read(kind, version, spec)

    assert isinstance(result, Refused)
    assert [problem.field for problem in result.problems] == [field]
