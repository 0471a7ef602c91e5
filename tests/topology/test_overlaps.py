"""Listeners whose hostnames overlap."""

from tests.topology.conftest import Build

GATEWAY = """
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: infergate
  allowedListeners: {{namespaces: {{from: Same}}}}
  listeners: [{}]
"""
SET = """
kind: ListenerSet
metadata: {{name: more}}
spec:
  parentRef: {{name: web}}
  listeners: [{}]
"""


def _listener(name: str, hostname: str, *, protocol: str = "HTTPS", mode: str = "Terminate", port: int = 443) -> str:
    tls = f"tls: {{mode: {mode}, certificateRefs: [{{name: tls}}]}}" if protocol != "HTTP" else ""
    return f"{{name: {name}, port: {port}, protocol: {protocol}, hostname: '{hostname}', {tls}}}"


def _overlapping(build_all: Build, gateway: str, listener_set: str = "") -> dict[str, str]:
    """Messages by listener."""
    sets = [SET.format(listener_set)] if listener_set else []
    topology = build_all(GATEWAY.format(gateway), *sets)
    return {
        item.name: condition.message
        for item in topology.gateways[0].listeners
        for condition in item.conditions
        if condition.type == "OverlappingTLSConfig"
    }


def test_listener_of_a_set_overlaps_with_the_gateway_s(build_all: Build) -> None:
    found = _overlapping(build_all, _listener("own", "*.example.com"), _listener("other", "a.example.com"))
    assert found == {
        "own": "hostname *.example.com overlaps with that of a listener of another resource of the Gateway",
        "other": "hostname a.example.com overlaps with that of a listener of another resource of the Gateway",
    }


def test_https_overlaps_with_tls_that_ends_here_or_elsewhere(build_all: Build) -> None:
    listeners = [
        _listener("https", "a.example.com"),
        _listener("ends", "*.example.com", protocol="TLS"),
        _listener("passed", "*.com", protocol="TLS", mode="Passthrough"),
    ]
    found = _overlapping(build_all, ", ".join(listeners))
    assert found["https"] == "hostname a.example.com overlaps with that of listener ends, passed"
    assert set(found) == {"https", "ends", "passed"}


def test_others_do_not_overlap(build_all: Build) -> None:
    listeners = [
        _listener("a", "a.example.com"),
        _listener("b", "b.example.com"),
        _listener("port", "*.example.com", port=444),
        _listener("plain", "*.example.com", protocol="HTTP", port=80),
        _listener("passed", "*.org", protocol="TLS", mode="Passthrough"),
        _listener("passed-too", "a.org", protocol="TLS", mode="Passthrough"),
    ]
    assert _overlapping(build_all, ", ".join(listeners), _listener("c", "c.example.com")) == {}


def test_listener_that_is_refused_overlaps_with_nobody(build_all: Build) -> None:
    own = [_listener("own", "a.example.com"), _listener("taken", "a.example.com", protocol="TLS")]
    assert _overlapping(build_all, _listener("own", "a.example.com"), _listener("taken", "a.example.com")) == {}
    assert _overlapping(build_all, ", ".join(own)) == {}
