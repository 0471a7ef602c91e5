"""Files of certificates, and how backends are known by them."""

import hashlib
from dataclasses import dataclass

from controller.ir.policies import BackendTls
from controller.ir.types import Certificate
from controller.render.quoting import name


@dataclass(frozen=True)
class TlsView:
    """How a backend is known."""

    hostname: str
    authorities: str
    """File, relative to nginx.conf."""


def tls_view(tls: BackendTls) -> TlsView:
    return TlsView(hostname=tls.hostname, authorities=authorities_name(tls.authorities))


def authorities_name(certificates: bytes) -> str:
    """File name of authorities, relative to nginx.conf."""
    # Whole, so that nobody finds certificates of his own whose file would take the place of another.
    return f"tls/authorities_{hashlib.sha256(certificates).hexdigest()}.crt"


def certificate_name(certificate: Certificate) -> str:
    """File name, without ending, relative to nginx.conf."""
    return f"tls/{name(certificate.source.path)}"


def certificate_files(certificate: Certificate) -> tuple[str, str]:
    stem = certificate_name(certificate)
    return f"{stem}.crt", f"{stem}.key"
