"""The certificate with which gateways are served: from files that are replaced now and then, or made at the start.

Gateways of the field do not verify a picker's certificate unless they are told to, so one that nobody signed is the
default there as here.
"""

import datetime
import logging
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.errors import SettingInvalid

log = logging.getLogger(__name__)

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_YEARS: Final = 10
"""Nothing renews it; the picker is started anew long before."""

Identity = tuple[bytes, bytes]
"""Key and certificate chain, each in PEM."""


def credentials_of(directory: Path | None) -> Any:  # Any: grpc has no types
    """What a server is given. Files are looked at with each connection, and unusable ones leave the last in use.

    Raises SettingInvalid when there is no usable certificate to begin with.
    """
    if directory is None:
        return grpc.ssl_server_credentials([self_signed()])
    files = CertificateFiles(directory)
    return grpc.dynamic_ssl_server_credentials(_configured(files.first), lambda: _changed(files))


class CertificateFiles:
    """A directory with a certificate and its key, as a Secret is mounted."""

    def __init__(self, directory: Path) -> None:
        """Raises SettingInvalid when they cannot be used."""
        self._directory = directory
        self._seen = self._identity()
        self.first = self._read()

    def newer(self) -> Identity | None:
        """What is there since the last look; None where nothing is, or nothing usable."""
        seen = self._identity()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            found = self._read()
        except SettingInvalid as problem:
            log.error("certificate unusable, the last stays", extra={"problem": str(problem)})
            return None
        log.info("certificate read", extra={"path": str(self._directory)})
        return found

    def _identity(self) -> tuple[tuple[int, int, int], ...]:
        try:
            found = [(self._directory / name).stat() for name in (CERTIFICATE, KEY)]
        except OSError:
            return ()
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _read(self) -> Identity:
        try:
            key, chain = ((self._directory / name).read_bytes() for name in (KEY, CERTIFICATE))
            private = serialization.load_pem_private_key(key, None)
            certificate = x509.load_pem_x509_certificate(chain)
        except (OSError, ValueError, TypeError) as problem:
            raise SettingInvalid(f"--cert-path {self._directory}: {problem}") from problem
        if _spki(private.public_key()) != _spki(certificate.public_key()):
            raise SettingInvalid(f"--cert-path {self._directory}: {KEY} is not the key of {CERTIFICATE}")
        return key, chain


def self_signed() -> Identity:
    """A key and a certificate that nobody else signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "infergate-picker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _configured(identity: Identity) -> Any:  # Any: as above
    return grpc.ssl_server_certificate_configuration([identity])


def _changed(files: CertificateFiles) -> Any:  # Any: as above
    newer = files.newer()
    return _configured(newer) if newer is not None else None


def _spki(key: Any) -> bytes:  # Any: keys of many kinds
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded
