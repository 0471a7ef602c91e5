"""What the instances of each Gateway are told."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from controller.control_plane.publishing import Publishing
from controller.dataplane.pki import Pair, issue, make_ca
from controller.errors import NginxRefused
from controller.resources.meta import Key

from .conftest import POOL, Clock, FakeServer, Resources, gateway, pod, route, said

EDGE, OTHER = "default/edge", "default/other"


def _refusal(server: FakeServer, words: str, *, of: str = EDGE) -> NginxRefused:
    """As nginx would refuse the first line of rules that holds the words."""
    for file in server.bundles[of].files:
        for number, line in enumerate(file.content.decode().splitlines(), start=1):
            if words in line and not line.lstrip().startswith("#"):
                return NginxRefused(file.path, number, f"cannot take {words}")
    raise AssertionError(f"nothing holds {words}")


def test_each_gateway_has_its_own_routes_alone(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    snapshot, topology = resources(
        gateway(), gateway("other"), POOL, route("a", "/mine"), route("b", "/theirs", parent="other")
    )
    assert publishing.publish(topology, snapshot)
    assert "/mine" in server.text()
    assert "/theirs" not in server.text()
    assert "/theirs" in server.text(OTHER)
    assert "/mine" not in server.text(OTHER)


def test_gateway_that_is_gone_is_withdrawn(publishing: Publishing, server: FakeServer, resources: Resources) -> None:
    snapshot, topology = resources(gateway(), gateway("other"))
    publishing.publish(topology, snapshot)
    snapshot, topology = resources(gateway())
    publishing.publish(topology, snapshot)
    assert set(server.bundles) == {EDGE}


def test_same_resources_are_no_news(publishing: Publishing, resources: Resources) -> None:
    snapshot, topology = resources(gateway(), POOL, route("a", "/a"))
    assert publishing.publish(topology, snapshot)
    assert not publishing.publish(topology, snapshot)


def test_refused_route_is_taken_out_of_the_gateway_that_refuses_it(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    documents = [
        gateway(), gateway("other"), POOL,
        route("good", "/good"), route("bad", "/bad[0-9]"), route("same", "/bad[0-9]", parent="other"),
    ]  # fmt: skip
    snapshot, topology = resources(*documents)
    publishing.publish(topology, snapshot)
    version = publishing.version(Key("gateway.networking.k8s.io", "Gateway", "default", "edge"))
    server.said[EDGE] = (said(version, refusal=_refusal(server, "bad[0-9]")),)
    assert publishing.learn(topology)
    assert "bad[0-9]" not in server.text()
    assert "/good" in server.text()
    assert "bad[0-9]" in server.text(OTHER)
    assert {key.name for key in publishing.refusals(topology).routes} == {"bad"}
    # What is said of a version that is no longer the newest teaches nothing.
    assert not publishing.learn(topology)


def test_refused_route_has_another_chance_when_it_changes(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    snapshot, topology = resources(gateway(), POOL, route("bad", "/bad[0-9]"))
    publishing.publish(topology, snapshot)
    version = server.bundles[EDGE].version
    server.said[EDGE] = (said(version, refusal=_refusal(server, "bad[0-9]")),)
    publishing.learn(topology)
    snapshot, topology = resources(gateway(), POOL, route("bad", "/better"))
    publishing.publish(topology, snapshot)
    assert "/better" in server.text()
    assert not publishing.refusals(topology)


def test_port_that_one_gateway_cannot_open_is_its_own_trouble(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    snapshot, topology = resources(gateway(), gateway("other"))
    publishing.publish(topology, snapshot)
    message = "bind() to 0.0.0.0:80 failed (98: Address already in use)"
    server.said[EDGE] = (said(server.bundles[EDGE].version, refusal=NginxRefused(None, None, message)),)
    assert publishing.learn(topology)
    found = publishing.refusals(topology)
    assert {(key.name, listener) for key, listener in found.listeners} == {("edge", "http")}
    assert "listen 0.0.0.0:80" not in server.text()
    assert "listen 0.0.0.0:80" in server.text(OTHER)


_ALT = ", {name: alt, port: 8081, protocol: HTTP}]"
_IN_USE = NginxRefused(None, None, "bind() to 0.0.0.0:8081 failed (98: Address already in use)")


def _refused_by(server: FakeServer, *pods: str, others: tuple[str, ...] = ()) -> None:
    """Pods that cannot open port 8081, and others that serve the newest version."""
    version = server.bundles[EDGE].version
    refusing = (said(version, refusal=_IN_USE, pod=pod) for pod in pods)
    server.said[EDGE] = (*refusing, *(said(version, live=version, pod=pod) for pod in others))


def _opens_8081(server: FakeServer) -> bool:
    return "listen 0.0.0.0:8081" in server.text()


def test_port_is_opened_once_the_pods_are_gone_that_could_not(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    snapshot, topology = resources(gateway().replace("]", _ALT))
    publishing.publish(topology, snapshot)
    _refused_by(server, "old-1", "old-2", others=("new-1",))
    assert publishing.learn(topology)
    _refused_by(server, others=("new-1", "old-2"))
    assert not publishing.learn(topology)
    assert not _opens_8081(server)
    _refused_by(server, others=("new-1", "new-2"))
    assert publishing.learn(topology)
    assert _opens_8081(server)
    assert not publishing.refusals(topology)


def test_port_that_no_listener_wants_any_more_has_another_chance(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    wants = resources(gateway().replace("]", _ALT))
    publishing.publish(wants[1], wants[0])
    _refused_by(server, "a")
    publishing.learn(wants[1])
    snapshot, topology = resources(gateway())
    publishing.publish(topology, snapshot)
    publishing.publish(wants[1], wants[0])
    assert _opens_8081(server)


def test_port_is_tried_again_after_a_while_in_pods_that_stay(
    publishing: Publishing, server: FakeServer, resources: Resources, clock: Clock
) -> None:
    snapshot, topology = resources(gateway().replace("]", _ALT))
    publishing.publish(topology, snapshot)
    waits = []
    for _ in range(8):
        _refused_by(server, "a")
        assert publishing.learn(topology)
        assert not _opens_8081(server)
        assert publishing.due is not None
        waits.append(publishing.due - clock.now)
        clock.now = publishing.due
        assert publishing.publish(topology, snapshot)
        assert _opens_8081(server)
        assert publishing.due is None
    assert 30 <= waits[0] <= 60
    assert 1800 <= waits[-1] <= 3600


def test_endpoints_go_to_pickers_at_once_and_to_nginx_later(
    publishing: Publishing, server: FakeServer, resources: Resources, clock: Clock
) -> None:
    snapshot, topology = resources(gateway(), POOL, route("a", "/a"))
    publishing.publish(topology, snapshot)
    first = server.bundles[EDGE].version
    snapshot, topology = resources(gateway(), POOL, route("a", "/a"), pod(1))
    assert publishing.publish(topology, snapshot)
    assert server.bundles[EDGE].version == first
    assert [endpoint.address for endpoint in server.pools[EDGE][-1].pools[0].endpoints] == ["10.0.0.1:8000"]
    assert publishing.due == pytest.approx(clock.now + publishing.endpoints_delay)
    # More of them do not put it off.
    clock.now += 3.0
    snapshot, topology = resources(gateway(), POOL, route("a", "/a"), pod(1), pod(2))
    publishing.publish(topology, snapshot)
    clock.now += 2.0
    publishing.publish(topology, snapshot)
    assert server.bundles[EDGE].version != first
    assert publishing.due is None


@pytest.mark.parametrize(("limits", "large"), [("{}", 4096), ("{memory: 1Gi}", 1024), ("{memory: 16Mi}", 64)])
def test_large_bodies_fit_into_the_memory_of_the_pod(
    publishing: Publishing, server: FakeServer, resources: Resources, limits: str, large: int
) -> None:
    parameters = (
        "apiVersion: infergate.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {name: small}\n"
        f"spec: {{resources: {{nginx: {{limits: {limits}}}}}}}\n---\n"
    )
    reference = "{group: infergate.dev, kind: GatewayParameters, name: small}"
    wanted = gateway().replace("spec:\n", f"spec:\n  infrastructure: {{parametersRef: {reference}}}\n")
    snapshot, topology = resources(parameters, wanted)
    publishing.publish(topology, snapshot)
    assert f"limit_conn infergate_large {large};" in server.text()


_GRANT = """\
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: vault}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]
  to: [{group: "", kind: Secret}]
---
"""
_PARAMETERS = """\
apiVersion: infergate.dev/v1alpha1
kind: GatewayParameters
metadata: {name: mine}
spec: {nginx: {maxBodySize: 77Mi, workers: 7}}
---
"""


@pytest.fixture(scope="module")
def pair() -> Pair:
    now = datetime.now(UTC)
    return issue(make_ca(now=now), ["shop.example"], now=now)


def _secret(pair: Pair, name: str = "cert") -> str:
    crt, key = (b64encode(part).decode() for part in (pair.certificate, pair.key))
    return (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: vault}}\ntype: kubernetes.io/tls\n"
        f"data: {{tls.crt: {crt}, tls.key: {key}}}\n---\n"
    )


def _https(secret: str = "cert", *, more: str = "") -> str:
    tls = f"{{certificateRefs: [{{name: {secret}, namespace: vault}}]}}"
    listener = f"{{name: https, port: 443, protocol: HTTPS, tls: {tls}}}{more}"
    return gateway().replace("{name: http, port: 80, protocol: HTTP}", listener)


def _with_parameters(gateway: str) -> str:
    reference = "{group: infergate.dev, kind: GatewayParameters, name: mine}"
    return gateway.replace("spec:\n", f"spec:\n  infrastructure: {{parametersRef: {reference}}}\n")


def _has_key(server: FakeServer, pair: Pair) -> bool:
    return any(pair.key in file.content for file in server.bundles[EDGE].files)


@pytest.mark.parametrize("more", ["", ", {name: http, port: 80, protocol: HTTP}"])
@pytest.mark.parametrize("ending", ["grant revoked", "secret deleted", "reference changed"])
def test_key_that_a_gateway_may_not_have_is_not_published(
    publishing: Publishing, server: FakeServer, resources: Resources, pair: Pair, ending: str, more: str
) -> None:
    snapshot, topology = resources(_secret(pair), _GRANT, _https(more=more), POOL, route("r", "/before"))
    publishing.publish(topology, snapshot)
    assert _has_key(server, pair)
    left = {
        "grant revoked": (_secret(pair), _https(more=more)),
        "secret deleted": (_GRANT, _https(more=more)),
        "reference changed": (_secret(pair), _GRANT, _https("other", more=more)),
    }[ending]
    snapshot, topology = resources(*left, POOL, route("r", "/after"))
    assert publishing.publish(topology, snapshot)
    assert not _has_key(server, pair)
    assert "/before" not in server.text()
    assert ("/after" in server.text()) is bool(more)


def test_gateway_whose_parameters_are_gone_serves_what_its_routes_say(
    publishing: Publishing, server: FakeServer, resources: Resources
) -> None:
    wanted = _with_parameters(gateway())
    snapshot, topology = resources(_PARAMETERS, wanted, POOL, route("r", "/before"))
    publishing.publish(topology, snapshot)
    snapshot, topology = resources(wanted, POOL, route("r", "/after"))
    publishing.publish(topology, snapshot)
    assert not topology.gateways[0].serves
    assert "/before" not in server.text()
    assert "/after" in server.text()
    # Its pods are those that the parameters wanted.
    assert "worker_processes 7;" in server.text()
    assert f"client_max_body_size {77 * 1024**2};" in server.text()


def test_gateway_whose_parameters_are_gone_gives_up_a_revoked_key(
    publishing: Publishing, server: FakeServer, resources: Resources, pair: Pair
) -> None:
    wanted = _with_parameters(_https())
    snapshot, topology = resources(_PARAMETERS, _secret(pair), _GRANT, wanted)
    publishing.publish(topology, snapshot)
    snapshot, topology = resources(_secret(pair), _GRANT, wanted)
    publishing.publish(topology, snapshot)
    assert _has_key(server, pair)
    snapshot, topology = resources(_secret(pair), wanted)
    publishing.publish(topology, snapshot)
    assert not _has_key(server, pair)
