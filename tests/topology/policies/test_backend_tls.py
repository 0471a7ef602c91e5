"""BackendTLSPolicies: which backends they apply to, how those are known, and what is reported."""

import json
from collections.abc import Callable

import pytest

from controller.ir.policies import AltName, BackendTls
from controller.ir.types import Target, ToPool, ToStatus
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.snapshot import Snapshot
from controller.topology.build import build
from controller.topology.types import Topology
from tests.nginx.certificates import Authority

Build = Callable[..., Topology]
Read = Callable[..., Snapshot]

CHAIN = Authority().chain.decode()
MORE = Authority().chain.decode()

SERVICE = """
kind: Service
metadata: {name: db}
spec: {ports: [{name: a, port: 443, appProtocol: HTTPS}, {name: b, port: 8443}]}
---
kind: EndpointSlice
metadata: {name: db, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: a, port: 8443}, {name: b, port: 8444}]
endpoints: [{addresses: [10.0.0.1]}]
---
kind: InferencePool
metadata: {name: gpu}
spec: {selector: {matchLabels: {app: llm}}, targetPorts: [{number: 8000}]}
"""


def _route(backend: str, *, name: str = "cart", gateway: str = "web") -> str:
    return f"""
kind: HTTPRoute
metadata: {{name: {name}}}
spec: {{parentRefs: [{{name: {gateway}}}], rules: [{{backendRefs: [{backend}]}}]}}
"""


TO_A, TO_B = "{name: db, port: 443}", "{name: db, port: 8443}"
TO_POOL = "{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}"


def _config_map(name: str = "ca", text: str = CHAIN) -> str:
    return f"kind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{ca.crt: {json.dumps(text)}}}\n"


def _policy(
    target: str = "{group: '', kind: Service, name: db}",
    *,
    name: str = "known",
    created: str = "2026-01-01",
    refs: str = "[{group: '', kind: ConfigMap, name: ca}]",
    more: str = "",
    spec: str = "",
) -> str:
    found = f"caCertificateRefs: {refs}, " if refs else ""
    return f"""
kind: BackendTLSPolicy
metadata: {{name: {name}, creationTimestamp: '{created}T00:00:00Z'}}
spec: {{targetRefs: [{target}], validation: {{{found}hostname: db.example{more}}}{spec}}}
"""


def _tls(topology: Topology) -> BackendTls | None:
    (upstream,) = topology.upstreams
    return upstream.tls


def _target(topology: Topology) -> Target:
    return topology.routes[0].cases[0].rule.backends[0].target


def _verdicts(topology: Topology, name: str = "known") -> list[str]:
    (state,) = [state for state in topology.policies if state.key.name == name]
    return [f"{ancestor.name} {item.type}={item.reason}" for ancestor, found in state.ancestors for item in found]


GOOD = ["web Accepted=Accepted", "web ResolvedRefs=ResolvedRefs"]


def test_service_is_known_by_the_name_and_the_authorities_of_its_policy(build_web: Build) -> None:
    topology = build_web(SERVICE, _route(TO_A), _config_map(), _policy())

    found = _tls(topology)
    assert found is not None
    assert (found.hostname, found.authorities.decode(), found.names) == ("db.example", CHAIN, ())
    assert _verdicts(topology) == GOOD


def test_backend_without_a_policy_is_spoken_to_in_plain_text(build_web: Build) -> None:
    assert _tls(build_web(SERVICE, _route(TO_B), _config_map())) is None


def test_protocol_https_needs_a_policy(build_web: Build) -> None:
    route = build_web(SERVICE, _route(TO_A)).routes[0]
    assert [item.reason for item in route.parents[0].conditions] == ["Accepted", "UnsupportedProtocol"]


def test_section_is_a_port_of_the_service(build_web: Build) -> None:
    policy = _policy("{group: '', kind: Service, name: db, sectionName: a}")

    assert _tls(build_web(SERVICE, _route(TO_A), _config_map(), policy)) is not None
    other = build_web(SERVICE, _route(TO_B), _config_map(), policy)
    assert _tls(other) is None
    assert _verdicts(other) == []


def test_policy_of_a_port_goes_before_that_of_its_service(build_web: Build) -> None:
    narrow = _policy("{group: '', kind: Service, name: db, sectionName: a}", created="2026-02-01", name="narrow")
    topology = build_web(SERVICE, _route(TO_A), _config_map(), _policy(), narrow)

    found = _tls(topology)
    assert found is not None
    assert found.source.name == "narrow"
    assert _verdicts(topology, "narrow") == GOOD
    assert _verdicts(topology) == GOOD


def test_of_two_policies_the_older_holds_and_the_other_is_told(build_web: Build) -> None:
    topology = build_web(SERVICE, _route(TO_A), _config_map(), _policy(name="late", created="2026-02-01"), _policy())

    found = _tls(topology)
    assert found is not None
    assert found.source.name == "known"
    assert _verdicts(topology, "late") == ["web Accepted=Conflicted", "web ResolvedRefs=ResolvedRefs"]


def test_broken_policy_keeps_its_claim_and_its_backend_gets_nothing(build_web: Build) -> None:
    broken = _policy(refs="[{group: '', kind: ConfigMap, name: missing}]")
    topology = build_web(SERVICE, _route(TO_A), _config_map(), broken, _policy(name="late", created="2026-02-01"))

    target = _target(topology)
    assert isinstance(target, ToStatus)
    assert target.status == 500
    assert "missing does not exist" in target.reason
    assert _verdicts(topology) == ["web Accepted=NoValidCACertificate", "web ResolvedRefs=InvalidCACertificateRef"]


@pytest.mark.parametrize(
    ("refs", "accepted", "resolved"),
    [
        ("[{group: '', kind: Secret, name: ca}]", "NoValidCACertificate", "InvalidKind"),
        ("[{group: example.com, kind: ConfigMap, name: ca}]", "NoValidCACertificate", "InvalidKind"),
        ("[{group: '', kind: ConfigMap, name: empty}]", "NoValidCACertificate", "InvalidCACertificateRef"),
        ("[{group: '', kind: ConfigMap, name: odd}]", "NoValidCACertificate", "InvalidCACertificateRef"),
        (
            "[{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: odd}]",
            "Accepted",
            "InvalidCACertificateRef",
        ),
        (
            "[{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: more}]",
            "Accepted",
            "ResolvedRefs",
        ),
    ],
)
def test_references_that_do_not_resolve(build_web: Build, refs: str, accepted: str, resolved: str) -> None:
    maps = (_config_map(), _config_map("more", MORE), _config_map("empty", ""), _config_map("odd", "hello"))
    topology = build_web(SERVICE, _route(TO_A), *maps, _policy(refs=refs))
    assert _verdicts(topology) == [f"web Accepted={accepted}", f"web ResolvedRefs={resolved}"]


def test_authorities_of_several_references_count_each_once(build_web: Build) -> None:
    refs = "[{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: both}]"
    both = _config_map("both", f"a comment\n{CHAIN}{MORE}")
    found = _tls(build_web(SERVICE, _route(TO_A), _config_map(), both, _policy(refs=refs)))
    assert found is not None
    assert found.authorities.decode() == CHAIN + MORE


@pytest.mark.parametrize(("name", "system"), [("System", None), ("example.com/mine", b"chain")])
def test_well_known_authorities_that_are_not_there(read: Read, name: str, system: bytes | None) -> None:
    policy = _policy(refs="", more=f", wellKnownCACertificates: {name}")
    topology = build(
        read(WEB, SERVICE, _route(TO_A), policy), controller_name=CONTROLLER_NAME, system_authorities=system
    )
    assert _verdicts(topology) == ["web Accepted=Invalid", "web ResolvedRefs=ResolvedRefs"]
    assert isinstance(_target(topology), ToStatus)


def test_system_authorities_are_those_that_are_given(read: Read) -> None:
    policy = _policy(refs="", more=", wellKnownCACertificates: System")
    resources = read(WEB, SERVICE, _route(TO_A), policy)
    found = _tls(build(resources, controller_name=CONTROLLER_NAME, system_authorities=b"chain"))
    assert found is not None
    assert found.authorities == b"chain"


def test_pool_has_a_policy_too(build_web: Build) -> None:
    policy = _policy("{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}")
    topology = build_web(SERVICE, _route(TO_POOL), _config_map(), policy)

    target = _target(topology)
    assert isinstance(target, ToPool)
    assert target.tls is not None
    assert _verdicts(topology) == GOOD


@pytest.mark.parametrize(
    "target",
    [
        "{group: '', kind: Service, name: db, sectionName: c}",
        "{group: inference.networking.k8s.io, kind: InferencePool, name: gpu, sectionName: c}",
    ],
)
def test_section_that_is_not_there_is_told_to_who_uses_the_rest(build_web: Build, target: str) -> None:
    topology = build_web(SERVICE, _route(TO_B), _route(TO_POOL, name="llm"), _config_map(), _policy(target))
    assert _verdicts(topology)[0] == "web Accepted=TargetNotFound"


def test_policy_of_a_service_that_is_not_there_is_told_to_who_asks_for_it(build_web: Build) -> None:
    topology = build_web(_route(TO_A), _config_map(), _policy())
    assert _verdicts(topology)[0] == "web Accepted=TargetNotFound"


def test_backend_of_a_mirror_counts_as_used(build_web: Build) -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: db, port: 8443}}}"
    route = f"""
kind: HTTPRoute
metadata: {{name: cart}}
spec: {{parentRefs: [{{name: web}}], rules: [{{filters: [{mirror}]}}]}}
"""
    assert _verdicts(build_web(SERVICE, route, _config_map(), _policy())) == GOOD


def test_gateway_that_does_not_take_the_route_is_no_ancestor(build_web: Build) -> None:
    elsewhere = f"""
kind: HTTPRoute
metadata: {{name: cart}}
spec: {{parentRefs: [{{name: web, sectionName: none}}], rules: [{{backendRefs: [{TO_A}]}}]}}
"""
    assert _verdicts(build_web(SERVICE, elsewhere, _config_map(), _policy())) == []


def test_entries_of_others_leave_room_for_fewer_gateways(build_web: Build) -> None:
    others = [{"ancestorRef": {"name": f"g{number}"}, "controllerName": "example.com/x"} for number in range(16)]
    policy = _policy() + f"status: {json.dumps({'ancestors': others})}\n"
    topology = build_web(SERVICE, _route(TO_A), _config_map(), policy)
    assert _verdicts(topology) == []
    assert _tls(topology) is not None


def test_names_of_the_certificate_take_the_place_of_the_hostname(build_web: Build) -> None:
    names = "{type: URI, uri: 'spiffe://example/db'}, {type: Hostname, hostname: '*.example'}"
    found = _tls(build_web(SERVICE, _route(TO_A), _config_map(), _policy(more=f", subjectAltNames: [{names}]")))
    assert found is not None
    assert found.names == (AltName("spiffe://example/db", is_uri=True), AltName("*.example"))


def test_names_hold_for_a_pool_and_for_who_scrapes_it(build_web: Build) -> None:
    more = ", subjectAltNames: [{type: URI, uri: 'spiffe://example/gpu'}, {type: Hostname, hostname: a.example}]"
    policy = _policy("{group: inference.networking.k8s.io, kind: InferencePool, name: gpu}", more=more)
    topology = build_web(SERVICE, _route(TO_POOL), _config_map(), policy)
    assert _verdicts(topology) == GOOD
    target = _target(topology)
    assert isinstance(target, ToPool)
    assert target.tls is not None
    assert target.tls.names == (AltName("spiffe://example/gpu", is_uri=True), AltName("a.example"))
    pool = topology.pools[0].pool
    assert pool.tls is not None
    assert (pool.tls.uris, pool.tls.hostnames) == (("spiffe://example/gpu",), ("a.example",))


def test_hostname_as_the_only_name_says_nothing_more(build_web: Build) -> None:
    more = ", subjectAltNames: [{type: Hostname, hostname: db.example}]"
    found = _tls(build_web(SERVICE, _route(TO_A), _config_map(), _policy(more=more)))
    assert found is not None
    assert found.names == ()


def test_options_are_without_effect_and_named(build_web: Build) -> None:
    topology = build_web(SERVICE, _route(TO_A), _config_map(), _policy(spec=", options: {example.com/a: b}"))
    assert _verdicts(topology) == [*GOOD, "web infergate.dev/IgnoredFields=UnsupportedValue"]
    assert _tls(topology) is not None


WEB = """
kind: Gateway
metadata: {name: web}
spec: {gatewayClassName: infergate, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
