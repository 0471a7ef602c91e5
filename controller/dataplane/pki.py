"""The certificate authority by which instances know the control plane: values made from values, nothing is kept here.

Certificates and keys are PEM. An authority is replaced in three steps, so that an instance never meets a certificate
that it cannot check: the next one is announced and trusted, after a while it signs, and the one before stays trusted
until it has expired.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME: Final = timedelta(days=365)
SERVING_LIFETIME: Final = timedelta(days=30)
INTRODUCTION: Final = timedelta(days=1)
"""For which the next authority is trusted before it signs. Instances see a changed ConfigMap within two minutes; one
whose node was cut off longer than this sees it when it is back, and asks again until then."""
_DUE: Final = 2 / 3
"""Share of its lifetime after which a certificate is replaced."""
_SKEW: Final = timedelta(minutes=5)
"""By which clocks of nodes may differ."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """Who signs the control plane's serving certificate, and whom instances trust."""

    signing: Pair
    next: Pair | None = None
    """Trusted, and signs once it is known everywhere."""
    retired: tuple[bytes, ...] = ()
    """Certificates that signed before, oldest first."""

    @property
    def trusted(self) -> bytes:
        """Every certificate that instances trust, the signing one first."""
        announced = (self.next.certificate,) if self.next else ()
        return b"".join((self.signing.certificate, *announced, *self.retired))


def advance(authority: Authority | None, *, now: datetime) -> Authority:
    """The authority as it has to be now: made, announced, replaced or without what expired. Else the same.

    One that expired while nobody looked is replaced at once: nobody can trust it any more.
    """
    if authority is None or _parsed(authority.signing.certificate).not_valid_after_utc <= now:
        return Authority(make_ca(now=now))
    kept = tuple(certificate for certificate in authority.retired if _parsed(certificate).not_valid_after_utc > now)
    if kept != authority.retired:
        authority = replace(authority, retired=kept)
    if authority.next is None:
        return (
            replace(authority, next=make_ca(now=now)) if is_due(authority.signing.certificate, now=now) else authority
        )
    if now < _parsed(authority.next.certificate).not_valid_before_utc + _SKEW + INTRODUCTION:
        return authority
    return Authority(authority.next, retired=(*kept, authority.signing.certificate))


def make_ca(*, now: datetime, lifetime: timedelta = CA_LIFETIME) -> Pair:
    """A certificate authority that signs serving certificates and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"infergate {now:%Y-%m-%d %H:%M:%S}")])
    builder = (
        _builder(name, key.public_key(), now=now, lifetime=lifetime)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(ca: Pair, names: Sequence[str], *, now: datetime, lifetime: timedelta = SERVING_LIFETIME) -> Pair:
    """A serving certificate for DNS names, with its chain. It does not outlive its authority."""
    authority = _parsed(ca.certificate)
    signer = serialization.load_pem_private_key(ca.key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the key of the certificate authority is not one that was made here")
    key = ec.generate_private_key(ec.SECP256R1())
    lifetime = min(lifetime, authority.not_valid_after_utc - now)
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(x509.Name([]), key.public_key(), now=now, lifetime=lifetime)
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # Critical because the subject is empty: names beyond 64 characters fit nowhere else. Source: RFC 5280, 4.2.1.6.
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
    )
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def is_due(certificate: bytes, *, now: datetime) -> bool:
    """Whether a certificate is to be replaced."""
    parsed = _parsed(certificate)
    return now >= parsed.not_valid_before_utc + _DUE * (parsed.not_valid_after_utc - parsed.not_valid_before_utc)


def must_be_issued(serving: Pair | None, ca: Pair, names: Sequence[str], *, now: datetime) -> bool:
    """Whether a serving certificate is missing, due, for other names or of another authority."""
    if serving is None or is_due(serving.certificate, now=now):
        return True
    parsed, authority = _parsed(serving.certificate), _parsed(ca.certificate)
    found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if found.get_values_for_type(x509.DNSName) != list(names) or parsed.issuer != authority.subject:
        return True
    theirs = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    ours = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return theirs != ours


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, *, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _parsed(certificate: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate)
