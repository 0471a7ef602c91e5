"""Endpoints of InferencePools, and what is reported of them."""

from collections.abc import Callable

import pytest

from controller.ir.types import Target, ToPool, ToStatus
from controller.pools import Engine, ExternalPicker, FailureMode, PickerTls
from controller.topology.types import PoolState, Topology

Build = Callable[..., Topology]


def _pool(*, ports: str = "[{number: 8000}]", more: str = "", name: str = "llm", where: str = "shop") -> str:
    return f"""
kind: InferencePool
metadata: {{name: {name}, namespace: {where}}}
spec:
  selector: {{matchLabels: {{app: llm}}}}
  targetPorts: {ports}
  {more}
"""


def _pod(
    name: str = "a", *, ip: str = "10.0.0.1", metadata: str = "", status: str = "", labels: str = "app: llm"
) -> str:
    address = f"podIP: {ip}" if ip else ""
    inner = ", ".join(part for part in (address, status) if part)
    return f"kind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}{metadata}}}\nstatus: {{{inner}}}\n"


ROUTE = """
kind: HTTPRoute
metadata: {name: chat}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: llm, group: inference.networking.k8s.io, kind: InferencePool}]}]
"""


def _addresses(topology: Topology) -> list[str]:
    return [item.address for item in topology.pools[0].pool.endpoints]


def _verdicts(pool: PoolState) -> dict[str, str]:
    return {item.type: f"{item.status}/{item.reason}" for item in pool.parents[0][1]}


def _target(topology: Topology) -> Target:
    return topology.routes[0].cases[0].rule.backends[0].target


PODS = [
    (_pod(), True),
    (_pod(status="conditions: [{type: Ready, status: 'True'}]"), True),
    (_pod(status="conditions: [{type: Ready, status: 'False'}]"), False),
    (_pod(status="conditions: [{type: Initialized, status: 'True'}]"), False),
    (_pod(status="phase: Running"), True),
    (_pod(status="phase: Failed"), False),
    (_pod(status="phase: Succeeded"), False),
    (_pod(ip=""), False),
    (_pod(labels="app: other"), False),
    (_pod(labels="app: llm, more: x"), True),
    (_pod(metadata=", namespace: far"), False),
    (_pod(metadata=", deletionTimestamp: '2026-01-01T00:00:00Z'"), False),
]


@pytest.mark.parametrize(("pod", "serves"), PODS)
def test_ready_pods_of_the_namespace_serve(build_web: Build, pod: str, serves: bool) -> None:
    assert _addresses(build_web(_pool(), pod)) == (["10.0.0.1:8000"] if serves else [])


def test_each_port_of_a_pod_is_an_endpoint(build_web: Build) -> None:
    pods = (_pod("b", ip="10.0.0.2"), _pod("a", ip="'fd00::1'"))
    topology = build_web(_pool(ports="[{number: 8001}, {number: 8000}]"), *pods)
    assert _addresses(topology) == ["10.0.0.2:8000", "10.0.0.2:8001", "[fd00::1]:8000", "[fd00::1]:8001"]


ACTIVE = [("8001", [8001]), ("8001, 8000", [8000, 8001]), ("9", []), ("x,8000", [8000])]


@pytest.mark.parametrize("key", ["llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"])
@pytest.mark.parametrize(("listed", "ports"), ACTIVE)
def test_annotation_restricts_the_ports_of_a_pod(build_web: Build, key: str, listed: str, ports: list[int]) -> None:
    pod = _pod(metadata=f", annotations: {{{key}: '{listed}'}}")
    topology = build_web(_pool(ports="[{number: 8000}, {number: 8001}]"), pod)
    assert _addresses(topology) == [f"10.0.0.1:{port}" for port in ports]


ENGINES = [("vllm", Engine.VLLM), ("sglang", Engine.SGLANG), ("llama.cpp", Engine.LLAMA_CPP), ("other", None)]


@pytest.mark.parametrize("key", ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"])
@pytest.mark.parametrize(("value", "engine"), ENGINES)
def test_label_names_the_engine(build_web: Build, key: str, value: str, engine: Engine | None) -> None:
    topology = build_web(_pool(), _pod(labels=f"app: llm, {key}: {value}", metadata=", uid: u1"))
    (endpoint,) = topology.pools[0].pool.endpoints

    assert endpoint.engine is engine
    assert (endpoint.name, endpoint.uid, endpoint.labels) == ("shop/a", "u1", {"app": "llm", key: value})


def _slice(name: str, *, pool: str = "llm", ports: str = "[{name: a, port: 7001}]", ready: str = "true") -> str:
    return f"""
kind: EndpointSlice
metadata: {{name: {name}, labels: {{infergate.dev/inference-pool: {pool}, llm-d.ai/engine-type: vllm}}}}
addressType: IPv4
ports: {ports}
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: {ready}}}}}]
"""


def test_labelled_slices_serve_on_each_of_their_ports(build_web: Build) -> None:
    slices = (_slice("s1", ports="[{name: a, port: 7001}, {name: b, port: 7002}]"), _slice("s2", ready="false"))
    topology = build_web(_pool(), *slices, _slice("s3", pool="other"))

    assert _addresses(topology) == ["127.0.0.1:7001", "127.0.0.1:7002"]
    assert {item.name for item in topology.pools[0].pool.endpoints} == {"shop/s1"}
    assert topology.pools[0].pool.endpoints[0].engine is Engine.VLLM


@pytest.mark.parametrize("ready", ["true, terminating: true", "false, serving: true, terminating: true"])
def test_endpoint_of_a_slice_that_ends_gets_nothing_new(build_web: Build, ready: str) -> None:
    assert _addresses(build_web(_pool(), _slice("s1", ready=ready))) == []


def test_an_address_is_one_endpoint(build_web: Build) -> None:
    topology = build_web(_pool(ports="[{number: 7001}]"), _slice("s1"), _slice("s2"), _pod(ip="127.0.0.1"))
    assert _addresses(topology) == ["127.0.0.1:7001"]


def test_empty_pool_is_left_to_the_picker(build_web: Build) -> None:
    topology = build_web(_pool(), ROUTE)

    assert _target(topology) == ToPool("shop/llm")
    assert _verdicts(topology.pools[0]) == {"Accepted": "True/Accepted", "ResolvedRefs": "True/ResolvedRefs"}


def test_pool_without_routes_has_no_parents(build_web: Build) -> None:
    assert build_web(_pool()).pools[0].parents == ()


def test_pool_has_one_parent_for_each_gateway(build_all: Build) -> None:
    gateways = [
        f"kind: Gateway\nmetadata: {{name: {name}}}\nspec: {{gatewayClassName: infergate, "
        "listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]}"
        for name in ("one", "two")
    ]
    parents = "parentRefs: [{name: two, sectionName: b}, {name: one, sectionName: a}, {name: one, sectionName: b}]"
    topology = build_all(*gateways, _pool(), ROUTE.replace("parentRefs: [{name: web}]", parents))

    assert [key.name for key, _ in topology.pools[0].parents] == ["one", "two"]


def test_pool_under_a_gateway_that_accepts_no_route_is_not_accepted(build_web: Build) -> None:
    topology = build_web(_pool(), ROUTE.replace("{name: web}", "{name: web, sectionName: missing}"))
    assert _verdicts(topology.pools[0])["Accepted"] == "False/HTTPRouteNotAccepted"


def test_pool_of_another_namespace_needs_a_grant(build_web: Build) -> None:
    route = ROUTE.replace("{name: llm,", "{name: llm, namespace: far,")
    origin = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}"
    grant = f"""
    kind: ReferenceGrant
    metadata: {{name: g, namespace: far}}
    spec: {{from: [{origin}], to: [{{group: inference.networking.k8s.io, kind: InferencePool}}]}}
    """
    refused, permitted = build_web(_pool(where="far"), route), build_web(_pool(where="far"), route, grant)

    assert isinstance(_target(refused), ToStatus)
    assert refused.pools[0].parents == ()
    assert _target(permitted) == ToPool("far/llm")


def test_protocol_of_a_pool_is_that_of_its_endpoints(build_web: Build) -> None:
    topology = build_web(_pool(more="appProtocol: kubernetes.io/h2c"), ROUTE)

    assert topology.pools[0].pool.speaks_http2
    assert not build_web(_pool(), ROUTE).pools[0].pool.speaks_http2
    assert _verdicts(topology.pools[0])["Accepted"] == "True/Accepted"


SERVICE = "kind: Service\nmetadata: {name: epp}\nspec: {ports: [{port: 9002}]}"
EXTERNAL = "kind: Service\nmetadata: {name: epp}\nspec: {type: ExternalName, externalName: a.example}"
BUILT_IN = "{group: infergate.dev, kind: Picker, name: x}"
EPP = "{name: epp, port: {number: 9002}}"
OPEN = "{name: epp, port: {number: 9002}, failureMode: FailOpen}"
PICKERS = [
    (BUILT_IN, "", "True/ResolvedRefs", True),
    (EPP, SERVICE, "True/ResolvedRefs", True),
    (EPP, "", "False/InvalidExtensionRef", False),
    (EPP, EXTERNAL, "False/InvalidExtensionRef", False),
    (OPEN, "", "False/InvalidExtensionRef", True),
    ("{group: example.com, kind: Picker, name: x}", "", "False/InvalidExtensionRef", False),
]


@pytest.mark.parametrize(("reference", "service", "resolved", "serves"), PICKERS)
def test_picker_reference_decides_over_the_pool(
    build_web: Build, reference: str, service: str, resolved: str, serves: bool
) -> None:
    topology = build_web(_pool(more=f"endpointPickerRef: {reference}"), ROUTE, service)

    assert _verdicts(topology.pools[0])["ResolvedRefs"] == resolved
    assert isinstance(_target(topology), ToPool) is serves


SLICE = """
kind: EndpointSlice
metadata: {name: epp-1, labels: {kubernetes.io/service-name: epp}}
addressType: IPv4
ports: [{port: 9000}]
endpoints: [{addresses: [10.0.9.2]}, {addresses: [10.0.9.1]}, {addresses: [10.0.9.3], conditions: {ready: false}}]
"""


def _external(topology: Topology) -> ExternalPicker | None:
    return topology.pools[0].pool.external


def test_external_picker_is_where_its_service_has_ready_endpoints(build_web: Build) -> None:
    topology = build_web(_pool(more=f"endpointPickerRef: {EPP}"), ROUTE, SERVICE, SLICE)
    addresses = ("10.0.9.1:9000", "10.0.9.2:9000")

    assert _external(topology) == ExternalPicker("epp.shop.svc:9002", addresses, tls=PickerTls())


@pytest.mark.parametrize("protocol", ["http2", "grpc", "https", "example.com/own"])
def test_external_picker_speaks_tls_whatever_its_service_says(build_web: Build, protocol: str) -> None:
    service = SERVICE.replace("port: 9002", f"port: 9002, appProtocol: {protocol}")
    external = _external(build_web(_pool(more=f"endpointPickerRef: {EPP}"), ROUTE, service, SLICE))
    assert external is not None
    assert external.tls == PickerTls()


def test_external_picker_of_h2c_speaks_plain_text(build_web: Build) -> None:
    service = SERVICE.replace("port: 9002", "port: 9002, appProtocol: kubernetes.io/h2c")
    external = _external(build_web(_pool(more=f"endpointPickerRef: {EPP}"), ROUTE, service, SLICE))
    assert external is not None
    assert external.tls is None


def test_external_picker_without_endpoints_is_one_that_cannot_be_reached(build_web: Build) -> None:
    topology = build_web(_pool(more=f"endpointPickerRef: {EPP}"), ROUTE, SERVICE)

    assert _external(topology) == ExternalPicker("epp.shop.svc:9002", tls=PickerTls())
    assert _target(topology) == ToPool("shop/llm")


def test_service_without_the_port_of_the_reference_is_no_picker(build_web: Build) -> None:
    topology = build_web(_pool(more=f"endpointPickerRef: {EPP}"), ROUTE, SERVICE.replace("9002", "9003"))
    resolved = next(item for item in topology.pools[0].parents[0][1] if item.type == "ResolvedRefs")

    assert (resolved.status, resolved.reason) == (False, "InvalidExtensionRef")
    assert "has no port 9002" in resolved.message


FAILURE_MODES = [("", FailureMode.FAIL_CLOSE), (EPP, FailureMode.FAIL_CLOSE), (OPEN, FailureMode.FAIL_OPEN)]


@pytest.mark.parametrize(("reference", "mode"), FAILURE_MODES)
def test_failure_mode_is_that_of_the_reference(build_web: Build, reference: str, mode: FailureMode) -> None:
    pool = _pool(more=f"endpointPickerRef: {reference}" if reference else "")
    assert build_web(pool).pools[0].pool.failure_mode is mode
