"""Findings, worst first."""

from collections.abc import Callable

from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.meta import Key
from controller.resources.snapshot import Rejection, Snapshot
from controller.status.derive import derive
from controller.status.rows import worst_first
from controller.status.types import Programmed, Row, Severity
from controller.topology.build import build

Read = Callable[..., Snapshot]
WEB = Key("gateway.networking.k8s.io", "Gateway", "shop", "web")


def _rows(snapshot: Snapshot, *rejections: Rejection) -> tuple[Row, ...]:
    topology = build(snapshot, controller_name=CONTROLLER_NAME)
    programmed = {WEB: Programmed(serving=True)}
    updates = derive(topology, snapshot=snapshot, controller_name=CONTROLLER_NAME, programmed=programmed)
    return worst_first(updates, rejections=rejections)


def test_sound_resources_have_one_row_each(read: Read) -> None:
    rows = _rows(read("kind: HTTPRoute\nmetadata: {name: cart}\nspec: {parentRefs: [{name: web}]}"))

    assert {row.severity for row in rows} == {Severity.FINE}
    assert [(row.kind, row.name) for row in rows] == [
        ("Gateway", "shop/web"),
        ("GatewayClass", "infergate"),
        ("HTTPRoute", "shop/cart"),
    ]


def test_rows_come_worst_first(read: Read) -> None:
    routes = """
    kind: HTTPRoute
    metadata: {name: ignoring}
    spec: {parentRefs: [{name: web}], rules: [{retry: {attempts: 9}}]}
    ---
    kind: HTTPRoute
    metadata: {name: broken}
    spec: {parentRefs: [{name: web, sectionName: missing}]}
    ---
    kind: Gateway
    metadata: {name: later}
    spec: {gatewayClassName: infergate, listeners: [{name: a, port: 82, protocol: HTTP}]}
    """
    rows = _rows(read(routes), Rejection("a.yaml:3", "Service shop/db", "spec.ports", "missing"))

    assert [(row.severity, row.name) for row in rows] == [
        (Severity.ERROR, "Service shop/db"),
        (Severity.ERROR, "shop/broken"),
        (Severity.WARNING, "shop/ignoring"),
        (Severity.PENDING, "shop/later"),
        (Severity.PENDING, "shop/later"),
        (Severity.FINE, "shop/web"),
        (Severity.FINE, "infergate"),
    ]
    assert rows[0].text == "Service shop/db: Rejected: a.yaml:3: spec.ports: missing"
    assert rows[1].text.startswith("HTTPRoute shop/broken parent web missing: Accepted=False/NoMatchingParent: ")
    assert rows[2].condition == "infergate.dev/IgnoredFields=True/UnsupportedValue"


def test_one_problem_is_one_row(read: Read) -> None:
    gateway = """
    kind: Gateway
    metadata: {name: odd}
    spec:
      gatewayClassName: infergate
      listeners:
      - {name: a, port: 82, protocol: HTTP}
      - {name: b, port: 82, protocol: HTTPS}
      - {name: c, port: 443, protocol: HTTPS}
    """
    rows = [row for row in _rows(read(gateway)) if row.severity is Severity.ERROR]

    assert [(row.place, row.condition) for row in rows] == [
        ("listener a", "Conflicted=True/ProtocolConflict"),
        ("listener b", "Conflicted=True/ProtocolConflict"),
        ("listener b", "ResolvedRefs=False/InvalidCertificateRef"),
        ("listener c", "ResolvedRefs=False/InvalidCertificateRef"),
    ]


def test_refused_gateway_is_one_row(read: Read) -> None:
    parameters = "infrastructure: {parametersRef: {group: a.example, kind: P, name: p}}"
    gateway = f"""
    kind: Gateway
    metadata: {{name: odd}}
    spec: {{gatewayClassName: infergate, listeners: [{{name: a, port: 82, protocol: HTTP}}], {parameters}}}
    """
    rows = [row for row in _rows(read(gateway)) if row.severity is Severity.ERROR]
    assert [(row.name, row.place, row.condition) for row in rows] == [
        ("shop/odd", "", "Accepted=False/InvalidParameters")
    ]
