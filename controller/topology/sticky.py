"""An annotation that keeps users on one side where requests are divided by weights.

Neither Gateway API nor InferenceModelRewrite has a field for it that says no more than this: a session persistence
holds one backend and endpoint, whatever becomes of its weight, by a cookie or a header that the gateway makes.
"""

import re
from collections.abc import Mapping
from typing import Final

from controller.resources.scalars import quoted
from controller.topology.conditions import Condition, invalid_annotations

STICKY_ANNOTATION: Final = "infergate.dev/sticky-header"
"""Names the header whose value tells users apart."""
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


def sticky_header_of(annotations: Mapping[str, str]) -> tuple[str, Condition | None]:
    """The name of the header in lower case, empty without one, and what is wrong with it."""
    value = annotations.get(STICKY_ANNOTATION)
    if value is None:
        return "", None
    if _HEADER.fullmatch(value):
        return value.lower(), None
    accepts = "accepted is the name of a header, letters, digits and '-'"
    return "", invalid_annotations([f"metadata.annotations[{STICKY_ANNOTATION}]: found {quoted(value)}, {accepts}"])
