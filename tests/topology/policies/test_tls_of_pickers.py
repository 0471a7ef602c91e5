"""BackendTLSPolicies for the Services of external pickers."""

import json
from collections.abc import Callable

import pytest

from controller.ir.types import ToPool, ToStatus
from controller.pools import ExternalPicker, PickerTls
from controller.topology.types import Topology
from tests.nginx.certificates import Authority

Build = Callable[..., Topology]

CHAIN = Authority().chain.decode()
CONFIG_MAP = f"kind: ConfigMap\nmetadata: {{name: ca}}\ndata: {{ca.crt: {json.dumps(CHAIN)}}}\n"
SERVICE = "kind: Service\nmetadata: {name: epp}\nspec: {ports: [{name: grpc, port: 9002, appProtocol: %s}]}"
ROUTE = """
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llm}]}]
"""


def _pool(mode: str = "FailClose") -> str:
    return f"""
kind: InferencePool
metadata: {{name: llm}}
spec:
  selector: {{matchLabels: {{app: llm}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}, failureMode: {mode}}}
"""


def _policy(section: str = "", ca: str = "ca", more: str = "") -> str:
    named = f", sectionName: {section}" if section else ""
    return f"""
kind: BackendTLSPolicy
metadata: {{name: known}}
spec:
  targetRefs: [{{group: '', kind: Service, name: epp{named}}}]
  validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: {ca}}}], hostname: epp.example{more}}}
"""


def _external(topology: Topology) -> ExternalPicker | None:
    return topology.pools[0].pool.external


def _resolved(topology: Topology) -> tuple[str, str]:
    found = next(item for item in topology.pools[0].parents[0][1] if item.type == "ResolvedRefs")
    return found.reason, found.message


@pytest.mark.parametrize("section", ["", "grpc"])
@pytest.mark.parametrize("protocol", ["http2", "kubernetes.io/h2c"])
def test_picker_is_known_as_the_policy_of_its_service_says(build_web: Build, protocol: str, section: str) -> None:
    topology = build_web(_pool(), ROUTE, SERVICE % protocol, CONFIG_MAP, _policy(section))

    assert _external(topology) == ExternalPicker(
        "epp.shop.svc:9002", tls=PickerTls(ca=CHAIN, server_name="epp.example")
    )
    assert _resolved(topology)[1].endswith("its certificate is verified")
    assert [
        (gateway.name, item.type, item.status) for gateway, found in topology.policies[0].ancestors for item in found
    ] == [("web", "Accepted", True), ("web", "ResolvedRefs", True)]


def test_picker_may_have_other_names_than_the_one_that_is_asked_for(build_web: Build) -> None:
    names = ", subjectAltNames: [{type: Hostname, hostname: '*.epp.example'}, {type: URI, uri: 'spiffe://a/epp'}]"
    external = _external(build_web(_pool(), ROUTE, SERVICE % "http2", CONFIG_MAP, _policy(more=names)))

    assert external is not None
    assert external.tls == PickerTls(CHAIN, "epp.example", hostnames=("*.epp.example",), uris=("spiffe://a/epp",))


def test_policy_of_another_port_says_nothing(build_web: Build) -> None:
    topology = build_web(_pool(), ROUTE, SERVICE % "http2", CONFIG_MAP, _policy("other"))
    external = _external(topology)

    assert external is not None
    assert external.tls == PickerTls()


@pytest.mark.parametrize(("mode", "target"), [("FailClose", ToStatus), ("FailOpen", ToPool)])
def test_picker_of_a_broken_policy_is_not_asked(build_web: Build, mode: str, target: type) -> None:
    topology = build_web(_pool(mode), ROUTE, SERVICE % "http2", CONFIG_MAP, _policy(ca="missing"))
    reason, message = _resolved(topology)

    assert _external(topology) is None
    assert (reason, "missing does not exist" in message) == ("InvalidExtensionRef", True)
    assert isinstance(topology.routes[0].cases[0].rule.backends[0].target, target)
    assert [found[0].reason for _, found in topology.policies[0].ancestors] == ["NoValidCACertificate"]


@pytest.mark.parametrize(
    ("protocol", "told"),
    [("http2", "not verified, which a BackendTLSPolicy changes"), ("kubernetes.io/h2c", "in plain text")],
)
def test_status_of_a_pool_says_that_its_picker_is_not_verified(build_web: Build, protocol: str, told: str) -> None:
    assert _resolved(build_web(_pool(), ROUTE, SERVICE % protocol))[1].endswith(told)
