"""Cross-origin requests in nginx's words: which origin is allowed, and what is said to it.

A map yields the origin of a request where it is allowed, and nothing elsewhere; nginx sends no header without a value.
What is said to every allowed origin hangs on a second map of the first. Equal filters share their maps.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.ir.filters import Cors, Filter
from controller.render.maps import digest
from controller.render.quoting import expression, text

ANSWERS: Final = (
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
)
"""Headers of backends that clients do not see, where the gateway answers for them."""

_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, order=True)
class Said:
    """A header with its value as a quoted nginx argument."""

    name: str
    value: str


@dataclass(frozen=True)
class OriginMap:
    """The origin of a request where it is allowed."""

    variable: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class GateMap:
    """A value for requests of allowed origins."""

    variable: str
    source: str
    value: str


@dataclass(frozen=True)
class CorsView:
    """One filter."""

    origin: str
    """Variable: the origin of a request, if it is allowed."""
    preflight: tuple[Said, ...]
    """The answer to an allowed preflight."""
    answers: tuple[Said, ...]
    """Added to every answer."""
    origins: OriginMap | None
    gates: tuple[GateMap, ...]


def cors_of(filters: Iterable[Filter]) -> CorsView | None:
    """What the last of some filters that is a Cors comes to."""
    found = [item for item in filters if isinstance(item, Cors)]
    return _view(found[-1]) if found else None


def _view(cors: Cors) -> CorsView:
    origins = None if cors.origins == ("*",) else _origins(cors)
    origin = origins.variable if origins else "$http_origin"
    always = [("access-control-allow-credentials", "true")] if cors.credentials else []
    if cors.expose and not (cors.credentials and "*" in cors.expose):
        always.append(("access-control-expose-headers", ", ".join(cors.expose)))
    gates = tuple(GateMap(f"$cors_{digest(origin + value)}", origin, text(value)) for _, value in always)
    said = (Said("access-control-allow-origin", expression(origin)), Said("vary", text("Origin")))
    preflight = [Said(name, text(value)) for name, value in always]
    for name, values, asked in (
        ("access-control-allow-methods", cors.methods, "$http_access_control_request_method"),
        ("access-control-allow-headers", cors.headers, "$http_access_control_request_headers"),
    ):
        # With credentials a browser takes the asterisk for a name, so what it asked for is repeated.
        if values:
            preflight.append(Said(name, expression(asked) if values == ("*",) else text(", ".join(values))))
    preflight.append(Said("access-control-max-age", text(cors.max_age)))
    return CorsView(
        origin=origin,
        preflight=(*said, *preflight),
        answers=(
            *said,
            *(Said(name, expression(gate.variable)) for (name, _), gate in zip(always, gates, strict=True)),
        ),
        origins=origins,
        gates=gates,
    )


def _origins(cors: Cors) -> OriginMap:
    patterns = tuple(_pattern(origin) for origin in cors.origins)
    return OriginMap(f"$cors_{digest(' '.join(patterns))}", patterns)


def _pattern(origin: str) -> str:
    """An expression for an origin, with or without the port that its scheme implies.

    Source: Gateway API, HTTPCORSFilter.allowOrigins.
    """
    scheme, _, rest = origin.partition("://")
    host, _, port = rest.partition(":")
    implied = _PORTS.get(scheme)
    name = re.escape(host).replace(r"\*", "[A-Za-z0-9.-]+")
    number = f"(?::{implied})?" if port in ("", implied) else f":{port}"
    return rf"^{re.escape(scheme)}://{name}{number}\z"
