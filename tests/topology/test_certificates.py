"""Certificates of HTTPS listeners."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.topology.types import Condition, ListenerState, Topology

Build = Callable[..., Topology]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@cache
def _pair(name: str, *, password: bytes | None = None) -> tuple[bytes, bytes]:
    """A certificate that expires 30 days after NOW, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(days=30)).not_valid_after(NOW + timedelta(days=30))
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return (
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection),
    )


def _secret(
    chain: bytes | None,
    key: bytes | None,
    *,
    name: str = "tls",
    namespace: str = "shop",
    type_: str = "kubernetes.io/tls",
) -> str:
    given = [(field, text) for field, text in (("tls.crt", chain), ("tls.key", key)) if text is not None]
    fields = ", ".join(f"{field}: {base64.b64encode(text).decode()}" for field, text in given)
    return f"kind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: {type_}\ndata: {{{fields}}}"


def _gateway(*references: str, hostname: str = "a.example", more: str = "") -> str:
    refs = ", ".join(references or ("{name: tls}",))
    return f"""
    kind: Gateway
    metadata: {{name: web}}
    spec:
      gatewayClassName: infergate
      listeners:
      - {{name: https, port: 443, protocol: HTTPS, hostname: {hostname}, tls: {{certificateRefs: [{refs}]{more}}}}}
    """


def _listener(topology: Topology) -> ListenerState:
    return topology.gateways[0].listeners[0]


def _condition(topology: Topology, type_: str) -> Condition:
    return next(item for item in _listener(topology).conditions if item.type == type_)


def test_certificate_of_the_own_namespace_is_served(build_all: Build) -> None:
    chain, key = _pair("a")
    topology = build_all(_gateway(), _secret(chain, key))
    (certificate,) = _listener(topology).certificates

    assert (certificate.chain, certificate.key) == (chain, key)
    assert _condition(topology, "ResolvedRefs").status is True
    assert _listener(topology).serves
    assert key.decode() not in repr(topology)


BROKEN = [
    ("missing Secret", ""),
    ("no key", _secret(_pair("a")[0], None)),
    ("no certificate", _secret(None, _pair("a")[1])),
    ("certificate is no PEM", _secret(b"Hello world", _pair("a")[1])),
    ("key is no PEM", _secret(_pair("a")[0], b"Hello world")),
    ("key of another certificate", _secret(_pair("a")[0], _pair("b")[1])),
    ("encrypted key", _secret(*_pair("c", password=b"secret"))),
    ("opaque Secret", _secret(*_pair("a"), type_="Opaque")),
    ("Secret of another name", _secret(*_pair("a"), name="other")),
]


@pytest.mark.parametrize("secret", [text for _, text in BROKEN], ids=[name for name, _ in BROKEN])
def test_broken_certificate_is_not_served(build_all: Build, secret: str) -> None:
    topology = build_all(_gateway(), secret)
    condition = _condition(topology, "ResolvedRefs")

    assert (condition.status, condition.reason) == (False, "InvalidCertificateRef")
    assert "Secret shop/tls" in condition.message
    assert _condition(topology, "Accepted").status is True
    assert ("gateway.networking.k8s.io", "HTTPRoute") in _listener(topology).supported_kinds
    assert not _listener(topology).serves
    assert [item.reason for item in topology.gateways[0].conditions] == ["Accepted", "ListenersNotResolved"]


@pytest.mark.parametrize("reference", ["{name: tls, kind: ConfigMap}", "{name: tls, group: wrong.example}"])
def test_reference_to_another_kind_is_invalid(build_all: Build, reference: str) -> None:
    topology = build_all(_gateway(reference), _secret(*_pair("a")))
    assert _condition(topology, "ResolvedRefs").reason == "InvalidCertificateRef"


def test_listener_without_certificates_is_invalid(build_all: Build) -> None:
    topology = build_all(
        """
        kind: Gateway
        metadata: {name: web}
        spec: {gatewayClassName: infergate, listeners: [{name: https, port: 443, protocol: HTTPS}]}
        """
    )
    assert _condition(topology, "ResolvedRefs").reason == "InvalidCertificateRef"


def test_one_sound_certificate_is_served_beside_a_broken_one(build_all: Build) -> None:
    topology = build_all(_gateway("{name: missing}", "{name: tls}"), _secret(*_pair("a")))

    assert _condition(topology, "ResolvedRefs").status is False
    assert len(_listener(topology).certificates) == 1
    assert _listener(topology).serves


def test_expired_certificate_is_served_with_a_warning(build_all: Build) -> None:
    topology = build_all(_gateway(), _secret(*_pair("a")), now=NOW + timedelta(days=31))
    condition = _condition(topology, "ResolvedRefs")

    assert condition.status is True
    assert "Secret shop/tls expired at 2026-07-01" in condition.message
    assert _listener(topology).serves


def test_valid_certificate_has_no_warning(build_all: Build) -> None:
    assert _condition(build_all(_gateway(), _secret(*_pair("a")), now=NOW), "ResolvedRefs").message == ""


def _grant(source: str, to: str) -> str:
    return f"kind: ReferenceGrant\nmetadata: {{name: g, namespace: vault}}\nspec: {{from: [{source}], to: [{to}]}}"


GATEWAYS = "{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}"
SECRETS = "{group: '', kind: Secret}"
GRANTS = [
    ("none", "", False),
    ("all Secrets", _grant(GATEWAYS, SECRETS), True),
    ("this Secret", _grant(GATEWAYS, "{group: '', kind: Secret, name: tls}"), True),
    ("another Secret", _grant(GATEWAYS, "{group: '', kind: Secret, name: other}"), False),
    ("another kind", _grant(GATEWAYS, "{group: '', kind: ConfigMap}"), False),
    ("another group", _grant(GATEWAYS, "{group: example.com, kind: Secret}"), False),
    ("for routes", _grant("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}", SECRETS), False),
    ("for a namespace", _grant("{group: gateway.networking.k8s.io, kind: Gateway, namespace: far}", SECRETS), False),
]


@pytest.mark.parametrize(("grant", "permitted"), [item[1:] for item in GRANTS], ids=[item[0] for item in GRANTS])
def test_certificate_of_another_namespace_needs_a_grant(build_all: Build, grant: str, permitted: bool) -> None:
    secret = _secret(*_pair("a"), namespace="vault")
    topology = build_all(_gateway("{name: tls, namespace: vault}"), secret, grant)

    assert _condition(topology, "ResolvedRefs").reason == ("ResolvedRefs" if permitted else "RefNotPermitted")
    assert _listener(topology).serves is permitted


def test_tls_options_refuse_the_listener(build_all: Build) -> None:
    topology = build_all(_gateway(more=", options: {example.com/min: TLSv1.3}"), _secret(*_pair("a")))

    assert _condition(topology, "Accepted").reason == "UnsupportedValue"
    assert "tls.options" in _condition(topology, "Accepted").message
    assert not _listener(topology).serves


def test_overlapping_hostnames_of_https_listeners_are_told(build_all: Build) -> None:
    tls = "tls: {certificateRefs: [{name: tls}]}"
    topology = build_all(
        f"""
        kind: Gateway
        metadata: {{name: web}}
        spec:
          gatewayClassName: infergate
          listeners:
          - {{name: a, port: 443, protocol: HTTPS, hostname: foo.example.com, {tls}}}
          - {{name: b, port: 443, protocol: HTTPS, hostname: foo.example.org, {tls}}}
          - {{name: c, port: 443, protocol: HTTPS, hostname: "*.example.com", {tls}}}
          - {{name: d, port: 444, protocol: HTTPS, hostname: "*.example.com", {tls}}}
        """,
        _secret(*_pair("a")),
    )
    overlapping = {
        item.name
        for item in topology.gateways[0].listeners
        for c in item.conditions
        if c.type == "OverlappingTLSConfig"
    }
    assert overlapping == {"a", "c"}


def _showing(reference: str) -> str:
    return f"""
    kind: Gateway
    metadata: {{name: web}}
    spec:
      gatewayClassName: infergate
      listeners: [{{name: http, port: 80, protocol: HTTP}}]
      tls: {{backend: {{clientCertificateRef: {reference}}}}}
    """


CLIENT_CERTIFICATES = [
    ("{name: tls}", "True/ResolvedRefs"),
    ("{name: missing}", "False/InvalidClientCertificateRef"),
    ("{name: opaque}", "False/InvalidClientCertificateRef"),
    ("{name: half}", "False/InvalidClientCertificateRef"),
    ("{name: tls, kind: ConfigMap}", "False/InvalidClientCertificateRef"),
    ("{name: tls, group: example.com}", "False/InvalidClientCertificateRef"),
    ("{name: tls, namespace: other}", "False/RefNotPermitted"),
]


@pytest.mark.parametrize(("reference", "expected"), CLIENT_CERTIFICATES)
def test_certificate_for_backends_is_a_reference_of_the_gateway(
    build_all: Build, reference: str, expected: str
) -> None:
    pair = _pair("edge.example")
    secrets = (_secret(*pair), _secret(*pair, name="opaque", type_="Opaque"), _secret(pair[0], None, name="half"))
    gateway = build_all(_showing(reference), *secrets).gateways[0]

    found = {item.type: f"{item.status}/{item.reason}" for item in gateway.conditions}
    assert found == {"Accepted": "True/Accepted", "ResolvedRefs": expected}
    assert gateway.serves
    assert (gateway.client_certificate is not None) == expected.startswith("True")


def test_grant_opens_another_namespace_to_the_certificate_for_backends(build_all: Build) -> None:
    grant = """
    kind: ReferenceGrant
    metadata: {name: edge, namespace: other}
    spec:
      from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}]
      to: [{group: '', kind: Secret}]
    """
    secret = _secret(*_pair("edge.example"), namespace="other")
    assert build_all(_showing("{name: tls, namespace: other}"), secret, grant).gateways[0].client_certificate


def test_expired_certificate_for_backends_is_a_warning(build_all: Build) -> None:
    late = NOW + timedelta(days=31)
    gateway = build_all(_showing("{name: tls}"), _secret(*_pair("edge.example")), now=late).gateways[0]
    assert "expired" in next(item.message for item in gateway.conditions if item.type == "ResolvedRefs")
