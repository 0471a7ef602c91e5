"""Certificates of listeners, and those that Gateways show to backends, checked before nginx sees them.

Both are Secrets of type kubernetes.io/tls.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from controller.ir.types import Certificate
from controller.resources.core import Secret
from controller.resources.gateway_api import Gateway, ListenerSet, SecretObjectReference
from controller.resources.meta import Key
from controller.topology.conditions import Condition, unresolved
from controller.topology.grants import permits
from controller.topology.index import Index

TLS_TYPE: Final = "kubernetes.io/tls"


@dataclass(frozen=True)
class Resolved:
    """A certificate that can be shown."""

    certificate: Certificate
    expires: datetime
    """When the leaf does, in UTC."""


@dataclass(frozen=True)
class _Broken:
    """Why a pair cannot be served: which field, and what is wrong with it."""

    message: str


def certificate(
    reference: SecretObjectReference,
    *,
    owner: Gateway | ListenerSet,
    index: Index,
    field: str = "certificateRefs",
    reason: str = "InvalidCertificateRef",
) -> Resolved | Condition:
    """The certificate that a field of a Gateway or of a ListenerSet refers to.

    Reasons: `reason`, RefNotPermitted.
    """
    namespace = reference.namespace or owner.metadata.namespace
    target = Key(group=reference.group, kind=reference.kind, namespace=namespace, name=reference.name)
    if (reference.group, reference.kind) != (Secret.group, "Secret"):
        found = f"{reference.kind}.{reference.group}" if reference.group else reference.kind
        return unresolved(reason, f"{field} accepts a Secret of the core group, found {found}")
    if not permits(index.grants, source=owner.key, target=target):
        message = f"{target} is in another namespace and no ReferenceGrant there permits {owner.key} to use it"
        return unresolved("RefNotPermitted", message)
    secret = index.secrets.get((namespace, reference.name))
    if secret is None:
        return unresolved(reason, f"{target} does not exist")
    if secret.type != TLS_TYPE:
        return unresolved(reason, f"{target} has type {secret.type}, accepted is {TLS_TYPE}")
    for name in ("tls.crt", "tls.key"):
        if name not in secret.data:
            return unresolved(reason, f"{target} has no {name}")
    expires = _expiry(secret.data["tls.crt"], secret.data["tls.key"])
    if isinstance(expires, _Broken):
        return unresolved(reason, f"{target}: {expires.message}")
    return Resolved(Certificate(target, secret.data["tls.crt"], secret.data["tls.key"]), expires)


def warning(pairs: Iterable[Resolved], *, now: datetime | None) -> str:
    """What a user should know of certificates that are served: which have expired. Empty when there is nothing."""
    late = [item for item in pairs if now is not None and item.expires < now]
    return "; ".join(
        f"warning: the certificate of {item.certificate.source} expired at {item.expires:%Y-%m-%dT%H:%M:%SZ}"
        for item in late
    )


@lru_cache(maxsize=256)  # checking an RSA key takes milliseconds, and the same pairs come again at every build
def _expiry(chain: bytes, key: bytes) -> datetime | _Broken:
    try:
        leaf, *_ = x509.load_pem_x509_certificates(chain)
    except (ValueError, x509.InvalidVersion):
        return _Broken("tls.crt holds no certificates in PEM")
    try:
        private = serialization.load_pem_private_key(key, password=None)
        fits = private.public_key() == leaf.public_key()
    except TypeError:
        return _Broken("tls.key is encrypted, accepted is a private key in PEM without a password")
    except ValueError:
        return _Broken("tls.key holds no private key in PEM")
    except UnsupportedAlgorithm:
        return _Broken("the algorithm of tls.crt or tls.key is not supported")
    return leaf.not_valid_after_utc if fits else _Broken("tls.key is not the key of the first certificate in tls.crt")
