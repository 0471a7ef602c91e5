"""The headers that a location sends on, as one list: nginx inherits such lists whole or not at all."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from controller.headers import (
    CONNECTION_HEADER,
    ENDPOINT_HEADER,
    EXPLAIN_HEADER,
    POOL_HEADER,
    PRIORITY_HEADERS,
    STEERING_HEADERS,
    THEN_HEADER,
)
from controller.ir.filters import Filter, HeaderChange, RequestHeaders, ResponseHeaders
from controller.render.cors import ANSWERS, cors_of
from controller.render.maps import MODEL_HEADERS
from controller.render.quoting import expression, inside, text

_REQUEST_BASE = {
    "host": "$infergate_host",
    "connection": "$infergate_connection",
    "upgrade": "$infergate_upgrade",
    "x-request-id": "$infergate_request_id",
    "x-forwarded-for": "$proxy_add_x_forwarded_for",
    "x-forwarded-host": "$infergate_asked_host",
    "x-forwarded-proto": "$scheme",
    "x-real-ip": "$remote_addr",
    **MODEL_HEADERS,
} | dict.fromkeys(STEERING_HEADERS, "")
"""What every backend receives beside the client's own headers; an empty value removes one."""

_NO_UPGRADE = {"connection": "", "upgrade": ""}
"""For servers of HTTP/2, which refuse a request with them (RFC 9113, section 8.2.2), and for copies, whose answer must
not take over the client's connection."""

_OF_CALLS = _NO_UPGRADE | {":authority": "$infergate_host", "host": ""}
"""For gRPC, whose servers read the host from `:authority`. nginx writes headers in the order of the file, and this name
sorts before all others, as pseudo-headers have to (RFC 9113, section 8.3)."""
_FOR_RELAY = {
    POOL_HEADER: "$infergate_pool",
    THEN_HEADER: "$infergate_without_picker",
    CONNECTION_HEADER: "$infergate_named",
    EXPLAIN_HEADER: "$http_x_infergate_explain",
} | {name: "$" + name.removeprefix("x-").replace("-", "_") for name in PRIORITY_HEADERS}
"""What the relay is told: the pool, where a request goes whose picker fails, which headers are of the client's
connection, whether it asks why, and what the route says of the priority."""

_HIDDEN = (*STEERING_HEADERS, "x-infergate-first-byte", "x-request-id")
"""Headers of backends that clients never see: those that steer, and those that the gateway states itself."""


@dataclass(frozen=True)
class Header:
    """One header with its value as a quoted nginx argument."""

    name: str
    value: str


@lru_cache(maxsize=1024)
def request_headers(
    filters: tuple[Filter, ...] = (),
    *,
    upgrades: bool = True,
    encodings: bool = True,
    is_call: bool = False,
    to_relay: bool = False,
    in_session: bool = False,
    copied_to: str = "",
) -> tuple[Header, ...]:
    """Everything that is set on a request to a backend, or to the relay in front of it, sorted by name.

    The relay is told the endpoint of a request that may be `in_session`.

    With `copied_to`, the name of a pool, it goes to the server that has copies picked, which adds the client's address
    itself.

    Without `upgrades` none is passed on; calls of gRPC have none anyway. Without `encodings` the answer is asked for
    uncompressed, whatever the client and filters say.
    Filters apply in order: what one sets, the next one can extend or remove.
    """
    values = _REQUEST_BASE | (_OF_CALLS if is_call else {} if upgrades else _NO_UPGRADE)
    if to_relay:
        values |= _FOR_RELAY
        if in_session:
            values[ENDPOINT_HEADER] = "$infergate_session_endpoint"
    if copied_to:
        values |= {POOL_HEADER: copied_to, "x-forwarded-for": "$http_x_forwarded_for"}
    for change in (item.change for item in filters if isinstance(item, RequestHeaders)):
        for name, value in change.assign:
            values[name] = inside(value)
        for name, value in change.append:
            values[name] = _appended(values, name, inside(value))
        for name in change.remove:
            values[name] = ""
    if to_relay:
        values[CONNECTION_HEADER] += _set_by(filters)
    if not encodings:
        values = {name: value for name, value in values.items() if name.lower() != "accept-encoding"}
        values["accept-encoding"] = ""
    return tuple(Header(name, expression(value)) for name, value in sorted(values.items()))


def _set_by(filters: Iterable[Filter]) -> str:
    """Names of headers that the filters set, behind a semicolon."""
    changes = [item.change for item in filters if isinstance(item, RequestHeaders)]
    names = {name.lower() for change in changes for name, _ in (*change.assign, *change.append)}
    return ";" + ",".join(sorted(names)) if names else ""


def appended_headers(filters: Iterable[Filter]) -> tuple[str, ...]:
    """Names of request headers that some filter extends; each needs a map for its comma, see `joined_variable`."""
    changes = [item.change for item in filters if isinstance(item, RequestHeaders)]
    return tuple(sorted({name for change in changes for name, _ in change.append}))


def joined_variable(name: str) -> str:
    """A variable that holds the client's header followed by a comma, or nothing without the header."""
    return "$joined_" + name.lower().replace("-", "_")


@dataclass(frozen=True)
class AnswerHeaders:
    """What changes on the way back: headers of the backend that are hidden, and those that are added."""

    hidden: tuple[str, ...]
    added: tuple[Header, ...]


@lru_cache(maxsize=1024)
def answer_headers(filters: tuple[Filter, ...] = ()) -> AnswerHeaders:
    """Changes of the answer's headers. Filters apply in order."""
    hidden = set(_HIDDEN)
    cors = cors_of(filters)
    added: list[tuple[str, str]] = []
    for change in (item.change for item in filters if isinstance(item, ResponseHeaders)):
        replaced = _replaced(change)
        hidden |= replaced
        added = [(name, value) for name, value in added if name not in replaced]
        added += [*change.assign, *((name, value) for name, value in change.append if name not in change.remove)]
    headers = [Header(name, text(value)) for name, value in added]
    if cors is not None:
        hidden.update(ANSWERS)
        headers += [Header(item.name, item.value) for item in cors.answers]
    return AnswerHeaders(hidden=tuple(sorted(hidden)), added=tuple(headers))


def _replaced(change: HeaderChange) -> set[str]:
    return {*change.remove, *(name for name, _ in change.assign)}


def _appended(values: dict[str, str], name: str, value: str) -> str:
    if values.get(name) in (None, MODEL_HEADERS.get(name)):
        return f"${{{joined_variable(name)[1:]}}}{value}"
    return f"{values[name]},{value}" if values[name] else value
