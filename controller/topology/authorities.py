"""Certificate authorities that references to ConfigMaps name, checked before nginx sees them."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controller.resources.core import ConfigMap
from controller.resources.gateway_api import LocalObjectReference
from controller.resources.meta import Key
from controller.topology.conditions import Condition, unresolved
from controller.topology.index import Index

KEY: Final = "ca.crt"
"""Of a ConfigMap: where its certificates are."""


def authorities(
    references: Iterable[LocalObjectReference], *, namespace: str, index: Index
) -> tuple[bytes, tuple[Condition, ...]]:
    """Certificates in PEM, each once, and what is wrong with references. Empty when none of them is valid.

    Reasons: InvalidKind, InvalidCACertificateRef.
    Source: Gateway API, BackendTLSPolicyValidation.caCertificateRefs.
    """
    certificates: dict[bytes, None] = {}
    problems = []
    for position, reference in enumerate(references):
        found = _referred(reference, where=f"caCertificateRefs[{position}]", namespace=namespace, index=index)
        if isinstance(found, Condition):
            problems.append(found)
        else:
            certificates.update(dict.fromkeys(found))
    return b"".join(certificates), tuple(problems)


def _referred(
    reference: LocalObjectReference, *, where: str, namespace: str, index: Index
) -> tuple[bytes, ...] | Condition:
    if (reference.group, reference.kind) != (ConfigMap.group, "ConfigMap"):
        found = f"{reference.kind}.{reference.group}" if reference.group else reference.kind
        return unresolved("InvalidKind", f"{where} accepts a ConfigMap of the core group, found {found}")
    return authorities_of(Key(reference.group, reference.kind, namespace, reference.name), where=where, index=index)


def authorities_of(key: Key, *, where: str, index: Index) -> tuple[bytes, ...] | Condition:
    """Certificates of a ConfigMap, each in PEM, at least one. `where` is the field that refers to it.

    Reason: InvalidCACertificateRef.
    """
    config_map = index.config_maps.get((key.namespace, key.name))
    if config_map is None:
        return unresolved("InvalidCACertificateRef", f"{where}: {key} does not exist")
    text = config_map.data.get(KEY, "").encode() or config_map.binary_data.get(KEY, b"")
    if not text.strip():
        return unresolved("InvalidCACertificateRef", f"{where}: {key} has no {KEY}")
    certificates = certificates_in(text)
    if not certificates:
        return unresolved("InvalidCACertificateRef", f"{where}: {KEY} of {key} holds no certificates in PEM")
    return certificates


@lru_cache(maxsize=256)  # the same ConfigMaps come again at every build
def certificates_in(text: bytes) -> tuple[bytes, ...]:
    """Certificates of a text, each as PEM without what stands around it; none when one of them cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(text)
    except (ValueError, x509.InvalidVersion):
        return ()
    return tuple(item.public_bytes(Encoding.PEM) for item in found)
