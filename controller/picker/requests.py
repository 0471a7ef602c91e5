"""A pick as NGINX asks for it: the client's request with the gateway's headers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec

from controller.headers import (
    ENDPOINT_HEADER,
    ID_HEADER,
    NAMED_MODEL_HEADER,
    POOL_HEADER,
    REWRITES_HEADER,
    THEN_HEADER,
    TRIED_HEADER,
    TryOutcome,
)
from controller.picker.apis import read_named
from controller.picker.chunks import Turn, chunk_hashes, turn_of
from controller.picker.health import Failure
from controller.picker.prompt import KEPT, NO_PROMPT, Prompt, read_prompt
from controller.picker.trace import Trace

Headers = Mapping[bytes, bytes]

_NO_HEADERS: Final[Headers] = MappingProxyType({})
_POOL: Final = POOL_HEADER.encode()
_THEN: Final = THEN_HEADER.encode()
_TRIED: Final = TRIED_HEADER.encode()
_ID: Final = ID_HEADER.encode()
_REWRITES: Final = REWRITES_HEADER.encode()
_SESSION: Final = ENDPOINT_HEADER.encode()
_NAMED_MODEL: Final = NAMED_MODEL_HEADER.encode()
TargetOf = Callable[[str, str, Headers], str]
"""The model that a request of a pool is given for the one that it names; empty where it keeps its own."""

_FAILURES: Final[dict[str, Failure]] = {
    TryOutcome.UNREACHABLE: Failure.UNREACHABLE,
    TryOutcome.CLOSED: Failure.CLOSED,
    TryOutcome.TIMEOUT: Failure.TIMEOUT,
}


class NotFromGateway(Exception):
    """A pick without the headers that NGINX always sets."""


@dataclass(frozen=True)
class Try:
    """An endpoint that failed this request before."""

    address: str
    failure: Failure


class PickRequest(msgspec.Struct, gc=False, eq=False):
    """What a pick is made from. Shows neither headers nor what was said.

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
    headers: Headers = _NO_HEADERS
    """Of the client and the gateway, names in lower case."""
    model: str = ""
    """As the client names it; empty when the body does not say."""
    target: str = ""
    """The model that it is given, where a rewrite of the pool says so; may be the same. Else empty."""
    is_streamed: bool = False
    """Whether the answer is to come token by token."""
    max_tokens: int | None = None
    """Of the answer."""
    tells_usage: bool = False
    """Whether the answer says how many tokens it took."""
    reads_usage: bool = False
    """Whether NGINX is to read that; set by the director."""
    prompt_bytes: int = 0
    """Bytes of the prompt; 0 when there is none that is understood."""
    hashes: Sequence[int] = ()
    """Of the prompt's chunks, each with all before it in it."""
    turn: Turn | None = None
    """Of a conversation; None for a prompt that is in none."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows, each `ip:port`, or `ip` for all its ports; None allows the whole pool."""
    tries_are_counted: bool = False
    """Whether the director was told of those that failed before, which it is not by NGINX."""
    session: str = ""
    """What NGINX says of the endpoint that its session is on, see `session_id`; empty without one."""
    worker: int = 0
    """The one of NGINX that asks, see `Workers`; 0 where that is not known."""
    adapter: str = ""
    """The model, if it is a LoRA adapter of the pool; set by the director."""
    cached_bytes: int = 0
    """Of the prompt, what the chosen endpoint had by its index; set by the director."""
    candidates: int = 0
    """Endpoints that were there to choose from; set by the director."""
    scores: tuple[Sequence[str], Sequence[float]] | None = None
    """Scorers, and what each said of the chosen endpoint; set by the profile, if it had a choice."""
    session_token: bytes = b""
    """What the client is told of the chosen endpoint, for the next request of its session; set by a part of the profile
    that reads it then. Else empty."""
    priority: int = 0
    """As the flow control reads it; 0 in a pool without one."""
    is_last_resort: bool = False
    """Whether the chosen endpoint fails, as all of the pool do; set by the director."""
    trace: Trace | None = None
    """Where it is noted why an endpoint is chosen; None for a request that does not ask, or may not."""
    matched: tuple[Sequence[Any], list[int]] | None = None  # Any: endpoints, which know nothing of requests
    """Endpoints and how many chunks each has, once that was asked for."""

    def __repr__(self) -> str:
        return f"PickRequest(id={self.id!r}, pool={self.pool!r}, path={self.path!r}, size={self.size})"


def is_pick(headers: Headers) -> bool:
    """Whether NGINX asks for an endpoint, whatever the path."""
    return _POOL in headers


class BodyPieces:
    """A body as it comes: kept up to a limit, counted beyond it."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self.size += len(piece)
        if self.size <= KEPT:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def drop(self) -> None:
        """Keep nothing: what was needed of it has been read, and the request has to wait."""
        self._pieces.clear()

    @property
    def kept(self) -> bytes:
        """The body; empty when it is larger than is kept."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def _keeps_its_model(pool: str, model: str, headers: Headers) -> str:
    return ""


def pick_request(
    method: str, path: str, headers: Headers, body: BodyPieces, *, target_of: TargetOf = _keeps_its_model
) -> PickRequest:
    """The request that is made of a whole body. Raises NotFromGateway when a header of the gateway is missing."""
    identity = headers.get(_ID, b"")
    then = headers.get(_THEN, b"")
    if not identity or not then:
        raise NotFromGateway
    tried = headers.get(_TRIED, b"")
    pool = headers[_POOL].decode("latin-1")
    model = target = ""
    if _REWRITES in headers:
        model = headers.get(_NAMED_MODEL, b"").decode("utf-8", "replace")
        target = target_of(pool, model, headers)
        if target and target != model:
            then = headers[_REWRITES]
    prompt = read_prompt(path, body.kept, served=target) if body.size else NO_PROMPT
    if prompt is NO_PROMPT and body.size:
        prompt = read_named(path, headers.get(b"content-type", b"").decode("latin-1"), body.kept)
    hashes, turn = hashed(prompt)
    return PickRequest(
        id=identity.decode("latin-1"),
        pool=pool,
        then=then,
        tried=read_tried(tried.decode("latin-1")) if tried else (),
        method=method,
        path=path,
        size=body.size,
        headers=headers,
        model=model or prompt.model or headers.get(_NAMED_MODEL, b"").decode("utf-8", "replace"),
        target=target,
        is_streamed=prompt.is_streamed,
        max_tokens=prompt.max_tokens,
        tells_usage=prompt.tells_usage,
        prompt_bytes=len(prompt.stream),
        hashes=hashes,
        turn=turn,
        session=headers[_SESSION].decode("latin-1") if _SESSION in headers else "",
    )


def hashed(prompt: Prompt) -> tuple[Sequence[int], Turn | None]:
    """The hashes of a prompt's chunks, and what it is in its conversation; None where there is none."""
    stream, root = prompt.stream, prompt.root
    hashes = chunk_hashes(stream, root=root) if stream else ()
    if not prompt.is_conversation:
        return hashes, None
    return hashes, turn_of(stream, hashes, root=root, asked=prompt.asked, answered=prompt.answered)


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
