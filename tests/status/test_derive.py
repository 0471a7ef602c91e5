"""The status of each resource, from the topology and from what data planes report."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controller.ir.streams import Opening
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.status.derive import derive
from controller.status.types import Address, AddressType, Programmed
from controller.topology.build import build
from controller.topology.refusals import Refusals

Read = Callable[..., Snapshot]
Statuses = Mapping[str, dict[str, Any]]  # by name of the resource, in Kubernetes' shape

WEB = Key("gateway.networking.k8s.io", "Gateway", "shop", "web")
CART = Key("gateway.networking.k8s.io", "HTTPRoute", "shop", "cart")
ROUTE = "kind: HTTPRoute\nmetadata: {name: cart, generation: 5}\nspec: {parentRefs: [{name: web, sectionName: http}]}"
SERVING = Programmed(serving=True, addresses=(Address(AddressType.IP, "10.0.0.1"),))
NOTHING = Refusals({}, {}, {})


def _statuses(snapshot: Snapshot, *, report: Programmed | None = SERVING, refusals: Refusals = NOTHING) -> Statuses:
    updates = derive(
        build(snapshot, controller_name=CONTROLLER_NAME),
        snapshot=snapshot,
        controller_name=CONTROLLER_NAME,
        programmed={WEB: report} if report else {},
        refusals=refusals,
    )
    return {item.key.name: item.status for item in updates}


def _verdicts(part: Mapping[str, Any]) -> dict[str, str]:  # a piece of a status
    return {item["type"]: f"{item['status']}/{item['reason']}" for item in part["conditions"]}


def _message(part: Mapping[str, Any], type_: str) -> str:  # a piece of a status
    return str(next(item["message"] for item in part["conditions"] if item["type"] == type_))


def test_status_of_a_sound_gateway(read: Read) -> None:
    status = _statuses(read(ROUTE))["web"]

    assert _verdicts(status) == {
        "Accepted": "True/Accepted",
        "Programmed": "True/Programmed",
        "ResolvedRefs": "True/ResolvedRefs",
    }
    assert status["addresses"] == [{"type": "IPAddress", "value": "10.0.0.1"}]
    assert [(item["name"], item["attachedRoutes"]) for item in status["listeners"]] == [("http", 1), ("more", 0)]
    assert {"group": WEB.group, "kind": "HTTPRoute"} in status["listeners"][0]["supportedKinds"]
    assert _verdicts(status["listeners"][0])["Programmed"] == "True/Programmed"


def test_status_of_a_class(read: Read) -> None:
    assert _verdicts(_statuses(read())["infergate"]) == {"Accepted": "True/Accepted"}


VERSIONS = [
    (
        {"gateways": "v1.6.1", "tcproutes": "v1.6.0"},
        "True/SupportedVersion",
        "definitions are of version v1.6.0, v1.6.1",
    ),
    (
        {"gateways": "v1.5.1", "httproutes": "v1.5.1", "tcproutes": "", "tlsroutes": "v1.6.1"},
        "False/UnsupportedVersion",
        "definitions accept version v1.6, found no version (tcproutes); v1.5.1 (gateways, httproutes)",
    ),
    ({"gateways": "v1.60.0"}, "False/UnsupportedVersion", "definitions accept version v1.6, found v1.60.0 (gateways)"),
    ({"gateways": "v1.6.1-dev"}, "False/UnsupportedVersion", None),
    ({"gateways": "main"}, "False/UnsupportedVersion", None),
]


@pytest.mark.parametrize(("versions", "verdict", "message"), VERSIONS)
def test_class_says_whether_definitions_are_supported(
    read: Read, versions: dict[str, str], verdict: str, message: str | None
) -> None:
    snapshot = read()
    updates = derive(
        build(snapshot, controller_name=CONTROLLER_NAME),
        snapshot=snapshot,
        controller_name=CONTROLLER_NAME,
        versions=versions,
    )
    (status,) = (item.status for item in updates if item.key.kind == "GatewayClass")
    assert _verdicts(status) == {"Accepted": "True/Accepted", "SupportedVersion": verdict}
    assert message is None or _message(status, "SupportedVersion") == message


@pytest.mark.parametrize("versions", [None, {}])
def test_class_says_nothing_of_definitions_that_are_not_there(read: Read, versions: dict[str, str] | None) -> None:
    snapshot = read()
    updates = derive(
        build(snapshot, controller_name=CONTROLLER_NAME),
        snapshot=snapshot,
        controller_name=CONTROLLER_NAME,
        versions=versions,
    )
    (status,) = (item.status for item in updates if item.key.kind == "GatewayClass")
    assert _verdicts(status) == {"Accepted": "True/Accepted"}


REPORTS = [
    (None, "Unknown/Pending", "Unknown/Pending"),
    (Programmed(serving=False, message="1 of 2"), "False/Pending", "False/Pending"),
    (Programmed(serving=False, reason="AddressNotUsable"), "False/AddressNotUsable", "False/Pending"),
    (Programmed(serving=False, reason="NoResources"), "False/NoResources", "False/Pending"),
    (Programmed(serving=False, reason="Invalid"), "False/Invalid", "False/Invalid"),
    (Programmed(serving=True, message="2 of 3"), "True/Programmed", "True/Programmed"),
]


@pytest.mark.parametrize(("report", "gateway", "listener"), REPORTS)
def test_programmed_follows_the_report(read: Read, report: Programmed | None, gateway: str, listener: str) -> None:
    status = _statuses(read(), report=report)["web"]

    assert _verdicts(status)["Programmed"] == gateway
    assert _verdicts(status["listeners"][0])["Programmed"] == listener
    if report is not None:
        assert report.message == _message(status, "Programmed")


def _gateway(text: str) -> str:
    return f"kind: Gateway\nmetadata: {{name: odd}}\nspec: {{gatewayClassName: infergate, {text}}}"


TCP = "{name: b, port: 81, protocol: SCTP}"
GATEWAYS = [
    (f"listeners: [{TCP}]", "False/ListenersNotValid", "False/Invalid", ["False/Invalid"]),
    (
        f"listeners: [{{name: a, port: 80, protocol: HTTP}}, {TCP}]",
        "True/ListenersNotValid",
        "Unknown/Pending",
        ["Unknown/Pending", "False/Invalid"],
    ),
    (
        "listeners: [{name: a, port: 80, protocol: HTTP}], addresses: [{type: Hostname, value: a.example}]",
        "False/UnsupportedAddress",
        "False/Invalid",
        ["False/Invalid"],
    ),
    ("listeners: [{name: a, port: 443, protocol: HTTPS}]", "True/Accepted", "False/Invalid", ["False/Invalid"]),
]


@pytest.mark.parametrize(("text", "accepted", "programmed", "listeners"), GATEWAYS)
def test_what_is_not_served_is_not_programmed(
    read: Read, text: str, accepted: str, programmed: str, listeners: list[str]
) -> None:
    status = _statuses(read(_gateway(text)))["odd"]

    assert _verdicts(status)["Accepted"] == accepted
    assert _verdicts(status)["Programmed"] == programmed
    assert [_verdicts(item)["Programmed"] for item in status["listeners"]] == listeners


def test_route_speaks_of_each_parent(read: Read) -> None:
    (parent,) = _statuses(read(ROUTE))["cart"]["parents"]

    assert parent["parentRef"] == {"group": WEB.group, "kind": "Gateway", "name": "web", "sectionName": "http"}
    assert parent["controllerName"] == CONTROLLER_NAME
    assert _verdicts(parent) == {"Accepted": "True/Accepted", "ResolvedRefs": "True/ResolvedRefs"}


def test_route_that_nginx_refused_stays_accepted_and_carries_its_words(read: Read) -> None:
    refusals = Refusals(routes={CART: 'unknown "x" variable'}, listeners={}, ports={})
    (parent,) = _statuses(read(ROUTE), refusals=refusals)["cart"]["parents"]

    assert _verdicts(parent)["Accepted"] == "True/Accepted"
    assert _verdicts(parent)["PartiallyInvalid"] == "True/UnsupportedValue"
    assert _message(parent, "PartiallyInvalid").startswith("Dropped Rule")
    assert _message(parent, "PartiallyInvalid").endswith('unknown "x" variable')


def test_refusal_comes_beside_rules_that_were_dropped_before(read: Read) -> None:
    route = ROUTE.replace(
        "}]}",
        "}], rules: [{}, {filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: X, name: x}}]}]}",
    )
    refusals = Refusals(routes={CART: "line"}, listeners={}, ports={})
    (parent,) = _statuses(read(route), refusals=refusals)["cart"]["parents"]

    assert "nginx refused" in _message(parent, "PartiallyInvalid")
    assert "Dropped Rule 1" in _message(parent, "PartiallyInvalid")


def test_listener_that_nginx_refused_is_not_programmed(read: Read) -> None:
    refusals = Refusals(routes={}, listeners={(WEB, "http"): "bad certificate"}, ports={})
    status = _statuses(read(), refusals=refusals)["web"]

    assert _verdicts(status["listeners"][0])["Programmed"] == "False/Invalid"
    assert _message(status["listeners"][0], "Programmed") == "nginx refused the listener: bad certificate"
    assert _verdicts(status["listeners"][1])["Programmed"] == "True/Programmed"
    assert _verdicts(status)["Programmed"] == "True/Programmed"
    assert "http" in _message(status, "Programmed")


def test_port_that_cannot_be_opened_is_unavailable(read: Read) -> None:
    status = _statuses(read(), refusals=Refusals({}, {}, {Opening(80): "in use", Opening(81): "in use"}))["web"]

    assert _verdicts(status["listeners"][0])["Accepted"] == "False/PortUnavailable"
    assert _verdicts(status["listeners"][0])["Programmed"] == "False/Invalid"
    assert _verdicts(status)["Programmed"] == "False/Invalid"


POOL = """
kind: InferencePool
metadata: {name: llm}
spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
"""


def test_pool_speaks_of_each_gateway(read: Read) -> None:
    backend = "rules: [{backendRefs: [{name: llm, group: inference.networking.k8s.io, kind: InferencePool}]}]"
    (parent,) = _statuses(read(POOL, ROUTE.replace("}]}", f"}}], {backend}}}")))["llm"]["parents"]

    assert parent["parentRef"] == {"group": WEB.group, "kind": "Gateway", "namespace": "shop", "name": "web"}
    assert parent["controllerName"] == CONTROLLER_NAME
    assert _verdicts(parent) == {"Accepted": "True/Accepted", "ResolvedRefs": "True/ResolvedRefs"}


def test_pool_without_routes_has_no_parents(read: Read) -> None:
    assert _statuses(read(POOL))["llm"] == {"parents": []}


def test_route_that_was_ours_loses_its_entry(read: Read) -> None:
    route = f"""
    kind: HTTPRoute
    metadata: {{name: gone}}
    spec: {{parentRefs: [{{name: other}}]}}
    status: {{parents: [{{controllerName: {CONTROLLER_NAME}, parentRef: {{name: web}}, conditions: []}}]}}
    """
    foreign = route.replace(CONTROLLER_NAME, "example.com/other").replace("gone", "foreign")
    statuses = _statuses(read(route, foreign))

    assert statuses["gone"] == {"parents": []}
    assert "foreign" not in statuses
