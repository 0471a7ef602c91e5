"""Whether the definitions of a cluster are of a version that is supported.

What they define is served as far as it is known, so classes are accepted either way.

Source: Gateway API, GatewayClassConditionStatusSupportedVersion.
"""

import re
from collections.abc import Mapping
from typing import Final

from controller.topology.conditions import SUPPORTED_VERSION, Condition

SUPPORTED: Final = "v1.6"
"""Whatever the patch: patches change no field."""
_SUPPORTED: Final = re.compile(rf"{re.escape(SUPPORTED)}\.\d+")


def supported_version(found: Mapping[str, str] | None) -> Condition | None:
    """The condition of GatewayClasses for the versions that definitions say, by the plural of their kind.

    None where nothing is known of definitions, or where there are none.
    """
    if not found:
        return None
    others: dict[str, list[str]] = {}
    for name, version in sorted(found.items()):
        if not _SUPPORTED.fullmatch(version):
            others.setdefault(version, []).append(name)
    if not others:
        versions = ", ".join(sorted(set(found.values())))
        return Condition(SUPPORTED_VERSION, True, "SupportedVersion", f"definitions are of version {versions}")
    told = "; ".join(f"{version or 'no version'} ({', '.join(names)})" for version, names in sorted(others.items()))
    message = f"definitions accept version {SUPPORTED}, found {told}"
    return Condition(SUPPORTED_VERSION, False, "UnsupportedVersion", message)
