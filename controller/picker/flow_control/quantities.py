"""Durations and sizes as an EndpointPickerConfig writes them."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator

_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?")
_BYTES: Final = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def seconds_of(value: object) -> object:
    """Seconds from a duration such as `1m30s`; what is no text is left to the type.

    Raises ValueError when the text is none. Source: Go, time.ParseDuration, without signs.
    """
    if not isinstance(value, str):
        return value
    if value == "0":
        return 0.0
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{value[:40]!r}: no duration; write it like 60s, 500ms or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def bytes_of(value: object) -> object:
    """Bytes from a quantity such as `1G` or `512Mi`; what is no text is left to the type.

    Raises ValueError when the text is none. Source: Kubernetes, resource.Quantity, without exponents.
    """
    if not isinstance(value, str):
        return value
    parts = _SIZE.fullmatch(value)
    if parts is None:
        raise ValueError(f"{value[:40]!r}: no size; write it like 1000000, 1G or 512Mi")
    return int(float(parts[1]) * _BYTES[parts[2]])


Duration = Annotated[float, BeforeValidator(seconds_of)]
"""Seconds."""
ByteCount = Annotated[int, BeforeValidator(bytes_of)]
