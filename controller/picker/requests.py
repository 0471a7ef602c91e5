"""A pick as NGINX asks for it: the client's request with the gateway's headers, read to its end."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from controller.bundle import ID_HEADER, POOL_HEADER, THEN_HEADER, TRIED_HEADER, TryOutcome
from controller.picker.health import Failure

Scope = MutableMapping[str, Any]  # Any: the ASGI specification gives each key a type of its own
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]  # Any: as above
Headers = Mapping[bytes, bytes]

_POOL: Final = POOL_HEADER.encode()
_THEN: Final = THEN_HEADER.encode()
_TRIED: Final = TRIED_HEADER.encode()
_ID: Final = ID_HEADER.encode()
_FAILURES: Final[dict[str, Failure]] = {
    TryOutcome.UNREACHABLE: Failure.UNREACHABLE,
    TryOutcome.CLOSED: Failure.CLOSED,
    TryOutcome.TIMEOUT: Failure.TIMEOUT,
}


class HungUp(Exception):
    """The client went away before its request was read."""


class NotFromGateway(Exception):
    """A pick without the headers that NGINX always sets."""


@dataclass(frozen=True)
class Try:
    """An endpoint that failed this request before."""

    address: str
    failure: Failure


class PickRequest(msgspec.Struct, frozen=True, gc=False):
    """What a pick is made from.

    A msgspec struct: made for every request, 0.3 us where a frozen dataclass takes 2.
    """

    id: str
    pool: str
    """`namespace/name`."""
    then: bytes
    """The named location that serves the picked request."""
    tried: tuple[Try, ...]
    """Oldest first."""
    method: str
    path: str
    size: int
    """Bytes of the body."""


def is_pick(headers: Headers) -> bool:
    """Whether NGINX asks for an endpoint, whatever the path."""
    return _POOL in headers


async def read_pick(scope: Scope, headers: Headers, receive: Receive) -> PickRequest:
    """The request, after its body was read to the end.

    The body is counted and dropped, one piece at a time. NGINX bounds the wait for it (client_body_timeout).
    Raises HungUp when the client goes away first, NotFromGateway when a header is missing.
    """
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    identity = headers.get(_ID, b"")
    then = headers.get(_THEN, b"")
    if not identity or not then:
        raise NotFromGateway
    tried = headers.get(_TRIED, b"")
    return PickRequest(
        id=identity.decode("latin-1"),
        pool=headers[_POOL].decode("latin-1"),
        then=then,
        tried=read_tried(tried.decode("latin-1")) if tried else (),
        method=scope["method"],
        path=scope["path"],
        size=size,
    )


def read_tried(text: str) -> tuple[Try, ...]:
    """Endpoints that failed, from `TRIED_HEADER`; what is not of its shape is left out."""
    tries = []
    for item in text.split(";"):
        address, equals, outcome = item.rpartition("=")
        if address and equals:
            tries.append(Try(address, _FAILURES.get(outcome, Failure.UNAVAILABLE)))
    return tuple(tries)


def last_item(listed: str) -> str:
    """The last item of one of nginx's $upstream_ variables: ` : ` between upstreams, `, ` inside one."""
    return listed.replace(" : ", ",").rpartition(",")[2].strip()


def failure_of_status(status: int) -> Failure | None:
    """What an endpoint's answer says against it; None for one that is in order.

    501 and 505 say what a server does not do, and it does it as little on any other day.
    """
    if status in (502, 503, 504):
        return Failure.UNAVAILABLE
    return Failure.ERROR if status >= 500 and status not in (501, 505) else None
