"""The certificate with which gateways are served: from files that are replaced now and then, or made at the start.

Gateways of the field do not verify a picker's certificate unless they are told to, so one that nobody signed is the
default there as here.
"""

import datetime
import logging
import os
import ssl
from pathlib import Path
from typing import Any, Final

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


class ServerTls:
    """TLS of a server, with a certificate that may change under it."""

    def __init__(self, directory: Path | None) -> None:
        """None makes a certificate. Raises SettingInvalid when there is no usable one to begin with."""
        self._files = CertificateFiles(directory) if directory is not None else None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["h2"])
        self._use(self._files.first if self._files is not None else self_signed())

    def refresh(self) -> None:
        """Use what is newest for connections that come. Unusable files leave the last in use."""
        newer = self._files.newer() if self._files is not None else None
        if newer is not None:
            self._use(newer)

    def _use(self, identity: Identity) -> None:
        # The library reads from files alone; this one has no name, and is gone when it is closed.
        file = os.memfd_create("tls")
        try:
            with os.fdopen(os.dup(file), "wb") as written:
                written.write(b"\n".join(identity))
            self.context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)


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


def _spki(key: Any) -> bytes:  # Any: keys of many kinds
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded
