"""Names in a certificate, compared with those by which a backend may be known.

Source: RFC 6125, 6.4.3, and Gateway API, BackendTLSPolicyValidation.subjectAltNames.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Presented = tuple[tuple[str, str], ...]
"""(kind, name) of each alternative name of a certificate, kinds as Python's ssl has them."""


def names_of(certificate: Mapping[str, Any] | None) -> Presented:  # any: a shape that Python's ssl does not type
    """Alternative names of a certificate as `peercert` has it; none of none."""
    listed = (certificate or {}).get("subjectAltName", ())
    return tuple((str(kind), str(name)) for kind, name in listed)


def is_known(presented: Presented, *, hostnames: Iterable[str], uris: Iterable[str]) -> bool:
    """Whether one of the names is wanted. The subject's common name does not count."""
    found = {name for kind, name in presented if kind == "URI"}
    patterns = [name.lower() for kind, name in presented if kind == "DNS"]
    return bool(found.intersection(uris)) or any(
        _covers(pattern, hostname) or _covers(hostname, pattern) for pattern in patterns for hostname in hostnames
    )


def _covers(pattern: str, hostname: str) -> bool:
    """Whether a name with or without a leading `*.`, which stands for one label, is or covers another."""
    if pattern == hostname:
        return True
    label, _, rest = hostname.partition(".")
    return pattern.startswith("*.") and label not in ("", "*") and "." in rest and pattern[2:] == rest
