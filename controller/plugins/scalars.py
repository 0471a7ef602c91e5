"""Values of an EndpointPickerConfig: each is strict, so that a number in quotes is not a number."""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from controller.plugins.problems import Broken, quoted

Text = Annotated[str, Field(strict=True, min_length=1, max_length=253)]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Positive = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Priority = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
"""Greater is more important; below 0 is sheddable. Source: InferenceObjective, spec.priority."""

_PART: Final = r"[0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)"
_DURATION: Final = rf"^(0|({_PART}){{1,6}})$"
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY: Final = r"^[0-9]{1,18}(\.[0-9]{1,9})?(k|M|G|T|Ki|Mi|Gi|Ti|[eE][0-9]{1,2})?$"
_UNITS: Final = {
    **{"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12},
    **{"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40},
}
_MOST: Final = 2**63


def seconds(duration: str) -> float:
    """Length of a duration such as `1m30s`.

    Source: Go, time.ParseDuration, without signs.
    """
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)", duration)
    return sum((float(count) * _SECONDS[unit] for count, unit in parts), 0.0)


def amount(quantity: int | str) -> int:
    """Number that a quantity such as `1G` or `512Mi` stands for, rounded down.

    Source: Kubernetes, resource.Quantity, without signs and without units below 1.
    """
    if isinstance(quantity, int):
        return quantity
    number = quantity.rstrip("kMGTi")
    return int(Decimal(number) * _UNITS[quantity[len(number) :]])


def _is_duration(value: str) -> str:
    if not re.fullmatch(_DURATION, value) or value.endswith("\n"):
        raise Broken(f"found {quoted(value)}, accepted is a duration such as 500ms, 10s or 1m30s")
    return value


def _is_quantity(value: object) -> int | str:
    accepted = "accepted is a quantity such as 5000, 1G or 512Mi"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Broken(f"found {quoted(value)}, {accepted}")
    if isinstance(value, str) and (not re.fullmatch(_QUANTITY, value) or value.endswith("\n")):
        raise Broken(f"found {quoted(value)}, {accepted}")
    if not 0 <= amount(value) < _MOST:
        raise Broken(f"found {quoted(value)}, accepted is a number of at least 0 and below 2^63")
    return value


Duration = Annotated[
    str,
    Field(strict=True, max_length=64),
    AfterValidator(_is_duration),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": _DURATION}),
]
"""As written, such as `1m30s`; `seconds` gives its length."""
Quantity = Annotated[
    int | str,
    BeforeValidator(_is_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""As written, such as `512Mi`; `amount` gives its value."""
