import ssl
from datetime import UTC, datetime, timedelta
from tempfile import NamedTemporaryFile

import pytest
from cryptography import x509

from controller.dataplane.pki import (
    CA_LIFETIME,
    INTRODUCTION,
    SERVING_LIFETIME,
    Authority,
    Pair,
    advance,
    is_due,
    issue,
    make_ca,
    must_be_issued,
)

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_NAME = "infergate-controller.infergate-system.svc"


def _trusts(trusted: bytes, serving: Pair, *, name: str = _NAME) -> bool:
    """Whether an instance that trusts these certificates takes the one that is served."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=trusted.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with NamedTemporaryFile() as file:
        file.write(serving.certificate + serving.key)
        file.flush()
        server.load_cert_chain(file.name)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (asking, answering, asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_certificate_is_trusted_by_its_authority_alone() -> None:
    now = datetime.now(UTC)
    ca, other = make_ca(now=now), make_ca(now=now)
    serving = issue(ca, [_NAME], now=now)
    assert _trusts(ca.certificate, serving)
    assert not _trusts(other.certificate, serving)
    assert not _trusts(ca.certificate, serving, name="elsewhere.svc")


def test_certificate_cannot_sign_another() -> None:
    now = datetime.now(UTC)
    ca = make_ca(now=now)
    serving = issue(ca, [_NAME], now=now)
    constraints = x509.load_pem_x509_certificate(serving.certificate).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert not constraints.value.ca


def test_long_name_fits() -> None:
    now = datetime.now(UTC)
    ca = make_ca(now=now)
    name = ".".join(["a" * 60] * 4)
    assert _trusts(ca.certificate, issue(ca, [name], now=now), name=name)


@pytest.mark.parametrize(("share", "due"), [(0.0, False), (0.6, False), (0.7, True), (1.5, True)])
def test_certificate_is_due_after_two_thirds(share: float, due: bool) -> None:
    serving = issue(make_ca(now=_NOW), [_NAME], now=_NOW)
    assert is_due(serving.certificate, now=_NOW + share * SERVING_LIFETIME) is due


def test_serving_certificate_does_not_outlive_its_authority() -> None:
    ca = make_ca(now=_NOW, lifetime=timedelta(days=3))
    serving = x509.load_pem_x509_certificate(issue(ca, [_NAME], now=_NOW).certificate)
    assert serving.not_valid_after_utc == _NOW + timedelta(days=3)


def test_certificate_is_issued_anew_for_other_names_and_authorities() -> None:
    ca = make_ca(now=_NOW)
    serving = issue(ca, [_NAME], now=_NOW)
    assert not must_be_issued(serving, ca, [_NAME], now=_NOW)
    assert must_be_issued(None, ca, [_NAME], now=_NOW)
    assert must_be_issued(serving, ca, [_NAME, "other"], now=_NOW)
    assert must_be_issued(serving, make_ca(now=_NOW), [_NAME], now=_NOW)


def test_rotation_never_leaves_an_instance_without_trust() -> None:
    """Whatever instances saw up to a day ago, they trust what is served today."""
    day, seen = timedelta(days=1), list[Authority]()
    authority: Authority | None = None
    serving: Pair | None = None
    signers = set[bytes]()
    for count in range(3 * CA_LIFETIME.days):
        now = _NOW + count * day
        authority = advance(authority, now=now)
        if must_be_issued(serving, authority.signing, [_NAME], now=now):
            serving = issue(authority.signing, [_NAME], now=now)
        assert serving is not None
        seen.append(authority)
        signers.add(authority.signing.certificate)
        for known in seen[-2:]:
            assert authority.signing.certificate in known.trusted
            assert _issuer(serving) in _subjects(known.trusted)
        assert all(end > now for end in _ends(authority.trusted))
    assert len(signers) >= 4


def test_next_authority_signs_after_its_introduction() -> None:
    first = advance(None, now=_NOW)
    due = _NOW + 0.7 * CA_LIFETIME
    announced = advance(first, now=due)
    assert (announced.signing, announced.next is not None) == (first.signing, True)
    assert advance(announced, now=due + 0.9 * INTRODUCTION) == announced
    switched = advance(announced, now=due + 1.1 * INTRODUCTION)
    assert (switched.signing, switched.retired) == (announced.next, (first.signing.certificate,))


def test_authority_that_expired_is_replaced_at_once() -> None:
    first = advance(None, now=_NOW)
    later = advance(first, now=_NOW + 2 * CA_LIFETIME)
    assert first.signing.certificate not in later.trusted
    assert issue(later.signing, [_NAME], now=_NOW + 2 * CA_LIFETIME)


def test_keys_are_hidden() -> None:
    authority = advance(None, now=_NOW)
    assert "PRIVATE" not in f"{authority!r}{authority}"


def _subjects(trusted: bytes) -> set[str]:
    return {each.subject.rfc4514_string() for each in x509.load_pem_x509_certificates(trusted)}


def _ends(trusted: bytes) -> list[datetime]:
    return [each.not_valid_after_utc for each in x509.load_pem_x509_certificates(trusted)]


def _issuer(serving: Pair) -> str:
    return x509.load_pem_x509_certificate(serving.certificate).issuer.rfc4514_string()
