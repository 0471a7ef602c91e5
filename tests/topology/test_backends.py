"""Where the requests of a rule go, and what is reported of its backends."""

from collections.abc import Callable

import pytest

from controller.ir.types import Backend, ToPool, ToStatus, ToUpstream
from controller.topology.types import Condition, RouteState, Topology

Build = Callable[..., Topology]


def _route(*backends: str, name: str = "cart") -> str:
    refs = "".join(f"\n    - {item}" for item in backends)
    return f"""
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: web}}]
  rules:
  - backendRefs:{refs or " []"}
"""


def _service(
    name: str = "db", *, ports: str = "[{port: 80, targetPort: 8080}]", more: str = "", where: str = "shop"
) -> str:
    return f"kind: Service\nmetadata: {{name: {name}, namespace: {where}}}\nspec: {{ports: {ports}{more}}}\n"


def _slice(
    endpoints: str, *, service: str = "db", ports: str = "[{port: 8080}]", type_: str = "IPv4", where: str = "shop"
) -> str:
    return f"""
kind: EndpointSlice
metadata: {{name: {service}-{type_.lower()}, namespace: {where}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: {type_}
ports: {ports}
endpoints: {endpoints}
"""


READY = "[{addresses: [10.0.0.1]}]"


def _backends(topology: Topology) -> tuple[Backend, ...]:
    return topology.routes[0].cases[0].rule.backends


def _resolved(route: RouteState) -> Condition:
    return next(item for item in route.parents[0].conditions if item.type == "ResolvedRefs")


def _upstream(topology: Topology) -> tuple[str, ...]:
    return topology.upstreams[0].endpoints


def test_service_with_endpoints_is_an_upstream(build_web: Build) -> None:
    topology = build_web(_route("{name: db, port: 80}"), _service(), _slice(READY))

    assert _backends(topology) == (Backend(ToUpstream("shop/db:80"), weight=1),)
    assert [(item.name, item.source.path, item.endpoints) for item in topology.upstreams] == [
        ("shop/db:80", "shop/db", ("10.0.0.1:8080",))
    ]
    assert _resolved(topology.routes[0]).status is True


def test_service_is_an_upstream_once_for_all_routes(build_web: Build) -> None:
    routes = [_route("{name: db, port: 80}", name=name) for name in ("a", "b")]
    assert len(build_web(*routes, _service(), _slice(READY)).upstreams) == 1


def test_service_without_ready_endpoints_answers_503(build_web: Build) -> None:
    topology = build_web(_route("{name: db, port: 80}"), _service(), _slice("[]"))
    (backend,) = _backends(topology)

    assert isinstance(backend.target, ToStatus)
    assert backend.target.status == 503
    assert topology.upstreams == ()
    assert _resolved(topology.routes[0]).status is True


ENDING = "conditions: {ready: false, serving: true, terminating: true}"
ENDPOINTS = [
    ("[{addresses: [10.0.0.1], conditions: {ready: true}}]", ("10.0.0.1:8080",)),
    ("[{addresses: [10.0.0.1], conditions: {ready: null}}]", ("10.0.0.1:8080",)),
    ("[{addresses: [10.0.0.1], conditions: {ready: false}}]", ()),
    ("[{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}, {addresses: [10.0.0.1]}]", ("10.0.0.1:8080", "10.0.0.2:8080")),
    ("[{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}]", ("10.0.0.1:8080",)),
    ("[{addresses: [10.0.0.1], conditions: {ready: false, serving: false, terminating: true}}]", ()),
    ("[{addresses: [10.0.0.1], conditions: {ready: false, serving: true}}]", ()),
    (f"[{{addresses: [10.0.0.1]}}, {{addresses: [10.0.0.2], {ENDING}}}]", ("10.0.0.1:8080",)),
]


@pytest.mark.parametrize(("endpoints", "expected"), ENDPOINTS)
def test_ready_endpoints_serve(build_web: Build, endpoints: str, expected: tuple[str, ...]) -> None:
    topology = build_web(_route("{name: db, port: 80}"), _service(), _slice(endpoints))
    assert tuple(address for item in topology.upstreams for address in item.endpoints) == expected


def test_endpoint_port_is_found_by_name(build_web: Build) -> None:
    ports = "[{name: web, port: 80, targetPort: 1}, {name: admin, port: 81, targetPort: 2}]"
    slices = _slice(READY, ports="[{name: admin, port: 9001}, {name: web, port: 9000}]")
    topology = build_web(_route("{name: db, port: 81}"), _service(ports=ports), slices)

    assert _upstream(topology) == ("10.0.0.1:9001",)


def test_headless_service_is_served_by_its_slices(build_web: Build) -> None:
    topology = build_web(_route("{name: db, port: 80}"), _service(more=", clusterIP: None"), _slice(READY))
    assert _upstream(topology) == ("10.0.0.1:8080",)


def test_ipv6_addresses_are_in_brackets(build_web: Build) -> None:
    slices = _slice("[{addresses: ['fd00::1']}]", type_="IPv6") + "---" + _slice(READY)
    topology = build_web(_route("{name: db, port: 80}"), _service(), slices)
    assert _upstream(topology) == ("10.0.0.1:8080", "[fd00::1]:8080")


def test_hostnames_in_slices_are_left_out(build_web: Build) -> None:
    slices = _slice("[{addresses: [db.example]}]", type_="FQDN")
    assert build_web(_route("{name: db, port: 80}"), _service(), slices).upstreams == ()


POD = """
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 9000}]}]}
status: {podIP: 10.0.0.7}
"""


@pytest.mark.parametrize(("port", "address"), [("8080", "10.0.0.7:8080"), ("http", "10.0.0.7:9000")])
def test_without_slices_the_pods_of_a_selector_serve(build_web: Build, port: str, address: str) -> None:
    service = _service(ports=f"[{{port: 80, targetPort: {port}}}]", more=", selector: {app: db}")
    assert _upstream(build_web(_route("{name: db, port: 80}"), service, POD)) == (address,)


def test_slices_come_before_pods(build_web: Build) -> None:
    service = _service(more=", selector: {app: db}")
    assert _upstream(build_web(_route("{name: db, port: 80}"), service, POD, _slice(READY))) == ("10.0.0.1:8080",)


UNRESOLVED = [
    ("missing Service", "{name: db, port: 80}", "", "BackendNotFound"),
    ("missing port", "{name: db, port: 81}", _service(), "BackendNotFound"),
    ("missing pool", "{name: llm, group: inference.networking.k8s.io, kind: InferencePool}", "", "BackendNotFound"),
    ("unknown kind", "{name: db, kind: NonExistent}", "", "InvalidKind"),
    ("unknown group", "{name: db, group: example.com, port: 80}", "", "InvalidKind"),
    ("another namespace", "{name: db, namespace: far, port: 80}", _service(where="far"), "RefNotPermitted"),
    ("UDP", "{name: db, port: 80}", _service(ports="[{port: 80, protocol: UDP}]"), "UnsupportedProtocol"),
    (
        "appProtocol",
        "{name: db, port: 80}",
        _service(ports="[{port: 80, appProtocol: kubernetes.io/wss}]"),
        "UnsupportedProtocol",
    ),
    (
        "ExternalName",
        "{name: db, port: 80}",
        _service(more=", type: ExternalName, externalName: a.example"),
        "UnsupportedValue",
    ),
]


@pytest.mark.parametrize(
    ("backend", "service", "reason"), [item[1:] for item in UNRESOLVED], ids=[item[0] for item in UNRESOLVED]
)
def test_unresolved_backend_answers_500(build_web: Build, backend: str, service: str, reason: str) -> None:
    topology = build_web(_route(backend), service)
    condition = _resolved(topology.routes[0])
    (found,) = _backends(topology)

    assert (condition.status, condition.reason) == (False, reason)
    assert condition.message.startswith("rules[0].backendRefs[0]: ")
    assert isinstance(found.target, ToStatus)
    assert found.target.status == 500
    assert topology.routes[0].parents[0].conditions[0].status is True


def test_each_backend_keeps_its_share(build_web: Build) -> None:
    weights = {"db": 70, "gone": 30, "idle": 0}
    route = _route(*(f"{{name: {name}, port: 80, weight: {weight}}}" for name, weight in weights.items()))
    topology = build_web(route, _service(), _slice(READY), _service("idle"))

    assert [(type(item.target), item.weight) for item in _backends(topology)] == [
        (ToUpstream, 70),
        (ToStatus, 30),
        (ToStatus, 0),
    ]


def test_several_problems_are_told_together(build_web: Build) -> None:
    condition = _resolved(build_web(_route("{name: a, kind: X}", "{name: b, port: 80}")).routes[0])

    assert condition.reason == "InvalidKind"
    assert "rules[0].backendRefs[0]: kind" in condition.message
    assert "rules[0].backendRefs[1]: Service shop/b does not exist" in condition.message


def test_rule_without_backends_is_resolved(build_web: Build) -> None:
    topology = build_web(_route())

    assert _backends(topology) == ()
    assert _resolved(topology.routes[0]).status is True


def _grant(*, source: str = "HTTPRoute", where: str = "shop", kind: str = "Service", name: str = "") -> str:
    to = f"{{group: '', kind: {kind}{', name: ' + name if name else ''}}}"
    origin = f"{{group: gateway.networking.k8s.io, kind: {source}, namespace: {where}}}"
    return f"kind: ReferenceGrant\nmetadata: {{name: g, namespace: far}}\nspec: {{from: [{origin}], to: [{to}]}}"


GRANTS = [
    (_grant(), True),
    (_grant(name="db"), True),
    (_grant(name="other"), False),
    (_grant(source="TCPRoute"), False),
    (_grant(where="elsewhere"), False),
    (_grant(kind="Secret"), False),
]


@pytest.mark.parametrize(("grant", "permitted"), GRANTS)
def test_service_of_another_namespace_needs_a_grant(build_web: Build, grant: str, permitted: bool) -> None:
    route = _route("{name: db, namespace: far, port: 80}")
    topology = build_web(route, _service(where="far"), _slice(READY, where="far"), grant)

    assert _resolved(topology.routes[0]).reason == ("ResolvedRefs" if permitted else "RefNotPermitted")
    assert bool(topology.upstreams) is permitted


def test_pool_and_service_stand_in_one_rule(build_web: Build) -> None:
    pool = """
    kind: InferencePool
    metadata: {name: llm}
    spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
    """
    refs = ("{name: db, port: 80}", "{name: llm, group: inference.networking.k8s.io, kind: InferencePool, port: 9}")
    topology = build_web(_route(*refs), _service(), _slice(READY), pool)

    assert [item.target for item in _backends(topology)] == [ToUpstream("shop/db:80"), ToPool("shop/llm")]
