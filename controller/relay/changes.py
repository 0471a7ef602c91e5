"""What a picker changes of headers, and where it sends a request."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Final

from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    Action,
    Changes,
    Metadata,
    endpoints_in,
    endpoints_of,
)
from controller.headers import EXPLAIN_HEADER
from controller.relay.http1 import Fields

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Belong to one connection. Source: RFC 9110, section 7.6.1."""
_FRAMING: Final = HOP_BY_HOP | {b"content-length"}
_NOT_NAMED: Final = frozenset({b"host", b"content-length", b"content-type"})
"""Belong to the message, whatever a sender says."""
_OWN: Final = _NOT_NAMED | {
    b"x-request-id",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"x-gateway-model-name",
}
"""What NGINX says of a request; a client has no say in them."""
_STEERING: Final = (b"x-accel-", b"x-infergate-", b"x-gateway-destination-endpoint")
"""Beginnings of names that NGINX, or this program, takes orders from."""
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def is_ordinary(name: bytes) -> bool:
    """Whether a header may pass from one side to the other. NGINX reads `_` in the name of one in an answer as `-`."""
    return name not in HOP_BY_HOP and not name.replace(b"_", b"-").startswith(_STEERING)


def ordinary(fields: Fields) -> list[tuple[bytes, bytes]]:
    """Headers that may pass from one side to the other: without those that `Connection` names either."""
    named = {
        option.strip().lower() for name, value in fields if name == b"connection" for option in value.split(b",")
    } - _NOT_NAMED
    return [item for item in fields if is_ordinary(item[0]) and item[0] not in named]


def without_named(fields: Fields, said: bytes) -> list[tuple[bytes, bytes]]:
    """Headers of a request without those that the client's `Connection` names. See `CONNECTION_HEADER`."""
    named, _, kept = said.partition(b";")
    own = _OWN.union(kept.split(b","))
    hidden = {option.strip().lower() for option in named.split(b",")} - own
    return [item for item in fields if item[0] not in hidden]


def changed(fields: Fields, changes: Changes) -> list[tuple[bytes, bytes]]:
    """Headers with a picker's changes: removals first, then what is set.

    Ignored, as Envoy does, is what would change the framing or the host, and what is no header.
    """
    removed = {name.encode() for name in changes.remove} - _FRAMING - {b"host"}
    result = [field for field in fields if field[0] not in removed]
    for item in changes.set:
        name = item.name.encode("latin-1", "replace")
        if name in _FRAMING or name == b"host" or not is_ordinary(name) or not is_header(name, item.value):
            continue
        exists = any(known == name for known, _ in result)
        if item.action is Action.OVERWRITE or (item.action is Action.OVERWRITE_IF_EXISTS and exists):
            result = [field for field in result if field[0] != name]
        elif item.action is Action.OVERWRITE_IF_EXISTS or (item.action is Action.ADD_IF_ABSENT and exists):
            continue
        result.append((name, item.value))
    return result


def is_header(name: bytes, value: bytes) -> bool:
    """Whether a header can be written as it is. Source: RFC 9110, section 5."""
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def target_of(changes: Changes, target: bytes) -> bytes:
    """The target of a request, which a picker may change by `:path`."""
    for item in changes.set:
        if item.name == ":path" and item.value.startswith(b"/") and re.fullmatch(rb"[\x21-\x7e\x80-\xff]+", item.value):
            target = item.value
    return target


def status_of(changes: Changes, status: int) -> int:
    """The status of an answer, which a picker may change by `:status`."""
    values = [item.value for item in changes.set if item.name == ":status"]
    return int(values[-1]) if values and re.fullmatch(rb"[2-5][0-9]{2}", values[-1]) else status


def explanation_of(changes: Changes) -> bytes:
    """Why an endpoint was chosen, where Infergate's own picker tells the client; empty where it does not."""
    values = [item.value for item in changes.set if item.name == EXPLAIN_HEADER]
    return values[-1] if values and _VALUE.fullmatch(values[-1]) else b""


def length_of(changes: Changes) -> int | None:
    """Bytes of the body that a picker announces by `content-length`."""
    values = [item.value for item in changes.set if item.name == "content-length"]
    return int(values[-1]) if values and values[-1].isdigit() and len(values[-1]) < 16 else None


def destinations(changes: Changes, metadata: Metadata) -> tuple[str, ...]:
    """Endpoints that a picker names, the first preferred: in the header, else in the metadata."""
    named = [item.value.decode("latin-1") for item in changes.set if item.name == ENDPOINT_KEY]
    found = endpoints_of(",".join(named)) or endpoints_in(metadata.get(ENDPOINT_NAMESPACE, {}).get(ENDPOINT_KEY))
    return tuple(dict.fromkeys(normal(item) for item in found))


def within(named: Iterable[str], members: Iterable[str]) -> list[str]:
    """Those of the named endpoints that belong to the pool, in their order and as the pool writes them."""
    known = {normal(member): member for member in members}
    return [known[item] for item in named if item in known]


def normal(address: str) -> str:
    """An address in its one spelling, where it has several."""
    host, _, port = address.rpartition(":")
    if not host.startswith("["):
        return address
    try:
        return f"[{IPv6Address(host.strip('[]')).compressed}]:{port}"
    except ValueError:
        return address


def value_of(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header."""
    return next((value for known, value in fields if known == name), None)
