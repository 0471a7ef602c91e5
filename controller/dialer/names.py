"""Names in a certificate, compared with those by which a backend may be known.

Source: RFC 6125, 6.4.3, and Gateway API, BackendTLSPolicyValidation.subjectAltNames.
"""

from collections.abc import Iterable

Presented = tuple[tuple[str, str], ...]
"""(kind, name) of each alternative name of a certificate, kinds as Python's ssl has them."""


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
