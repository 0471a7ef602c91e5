"""Certificates that sign themselves, and those of an authority."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(*names: str) -> tuple[bytes, bytes]:
    """A chain of one and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(names[0])
    made = _builder(subject, key).issuer_name(subject).add_extension(_alt_names(names), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _private(key)


@dataclass(frozen=True)
class Authority:
    """Signs certificates. Its own is `chain`, as PEM."""

    name: str = "authority"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def chain(self) -> bytes:
        subject = _name(self.name)
        made = _builder(subject, self._key).issuer_name(subject)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def certificate(self, *names: str, days: int = 1) -> tuple[bytes, bytes]:
        """A chain of one and its key, as PEM. Names with a colon are URIs. days: until it expires, or since."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(_name("leaf"), key, days=days).issuer_name(_name(self.name))
        made = made.add_extension(_alt_names(names), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _private(key)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int = 1) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alt_names(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(name) if ":" in name else x509.DNSName(name) for name in names]
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
