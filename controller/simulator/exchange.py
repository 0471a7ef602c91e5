"""One request and its answer over ASGI, with the two things ASGI does not offer: a reset, and word at once of a client
that left."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from controller.simulator.answers import error_body, json_bytes
from controller.simulator.arrivals import Arrival

MAX_BODY_BYTES = 256 * 1024 * 1024
_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "RequestEntityTooLargeError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
}


class Connection(Protocol):
    """The TCP connection of a request."""

    on_lost: Callable[[], None] | None
    """Called once when the connection is gone."""

    def reset(self) -> None:
        """Close it with a TCP reset."""


class ClientLeft(Exception):
    """The connection is gone; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """A request that gets an error for an answer."""

    status: int
    message: str
    param: str | None = None
    kind: str = ""
    """The type of the error; empty for that of the status."""


class Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send, *, arrival: Arrival) -> None:
        self.connection: Connection = scope["state"]["connection"]
        self.connection.on_lost = self._lose
        self.arrival = arrival
        self.is_lost = False
        self.on_lost: Callable[[], None] | None = None
        """Called once, at once, when the client leaves before the answer's end."""
        self._receive = receive
        self._send = send
        self._echoed = [(name, value) for name, value in scope["headers"] if name == b"x-request-id"]

    @property
    def request_id(self) -> str | None:
        return self._echoed[0][1].decode("latin-1") if self._echoed else None

    async def body(self) -> bytes:
        """All of the request's body. Raises ClientLeft, and Refused over `MAX_BODY_BYTES`."""
        chunks = []
        digest = hashlib.sha256()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            chunks.append(chunk)
            digest.update(chunk)
            self.arrival.body_bytes += len(chunk)
            if self.arrival.body_bytes > MAX_BODY_BYTES:
                raise Refused(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
        self.arrival.body_sha256 = digest.hexdigest()
        return b"".join(chunks)

    async def wait_until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def end(self) -> None:
        """The exchange is over: what becomes of the connection concerns others."""
        self.connection.on_lost = None

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes = b"application/json", closes: bool = False
    ) -> None:
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        if closes:
            headers.append((b"connection", b"close"))
        await self._begin(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def answer_json(self, value: object, *, status: int = 200, closes: bool = False) -> None:
        await self.answer(json_bytes(value), status=status, closes=closes)

    async def answer_error(self, refused: Refused) -> None:
        kind = _TYPES.get(refused.status, "InternalServerError" if refused.status >= 500 else "BadRequestError")
        body = error_body(refused.status, refused.message, kind=refused.kind or kind, param=refused.param)
        await self.answer(body, status=refused.status)

    async def begin_events(self) -> None:
        await self._begin(200, [(b"content-type", b"text/event-stream; charset=utf-8")])

    async def send_events(self, events: bytes, *, is_last: bool = False) -> None:
        """Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": events, "more_body": not is_last})

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.arrival.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers + self._echoed})

    def _lose(self) -> None:
        self.is_lost = True
        self.arrival.aborted = True
        if self.on_lost is not None:
            self.on_lost()


def arrival_of(scope: Scope) -> Arrival:
    path: bytes = scope["raw_path"]
    if scope["query_string"]:
        path += b"?" + scope["query_string"]
    return Arrival(scope.get("method", "GET"), path.decode("latin-1"), scope["headers"])
