"""A request as a gateway shows it, read as the picker reads one from NGINX.

What a client sends of the headers that steer Infergate's own gateway counts for nothing here and is removed on the way:
that gateway says what its routes say in metadata, which clients cannot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.extproc.messages import (
    OWN_NAMESPACE,
    SESSION_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
    TARGET_KEY,
    TRIED_KEY,
    Headers,
    Metadata,
    endpoints_in,
)
from controller.headers import (
    ENDPOINT_HEADER,
    EXPLAIN_HEADER,
    PRIORITY_HEADERS,
    STEERING_HEADERS,
    TARGET_HEADER,
    session_id,
)
from controller.picker.apis import read_named
from controller.picker.prompt import KEPT, NO_PROMPT, read_prompt
from controller.picker.requests import PickRequest, Try, hashed, read_tried

STEERING: Final = frozenset(STEERING_HEADERS)


@dataclass(frozen=True, slots=True)
class Intake:
    """The head of a request."""

    method: str
    path: str
    """Without the query."""
    headers: dict[bytes, bytes]
    """Names in lower case; of a repeated one the last."""
    removed: tuple[str, ...]
    """Names of headers that no model server is to see."""
    subset: frozenset[str] | None
    """Endpoints that the gateway allows; None allows all of the pool."""
    session: str = ""
    """`ip:port` of the endpoint that the session of the request is on; empty without one."""
    tried: tuple[Try, ...] = ()
    """Endpoints that failed the request in earlier exchanges, where they were counted."""

    def request(
        self, identity: str, *, pool: str, body: bytes, size: int, model: str = "", target: str = ""
    ) -> PickRequest:
        """The pick for it. `body` may be empty although there are `size` bytes of it: it is not read then.

        `model` is what the body names, where that was read before, and `target` what it is given instead.
        """
        prompt = read_prompt(self.path, body, served=target) if body and len(body) <= KEPT else NO_PROMPT
        if prompt is NO_PROMPT and body:
            prompt = read_named(self.path, self.headers.get(b"content-type", b"").decode("latin-1"), body)
        hashes, turn = hashed(prompt)
        return PickRequest(
            id=identity,
            pool=pool,
            then=b"",
            tried=self.tried,
            tries_are_counted=True,
            method=self.method,
            path=self.path,
            size=size,
            headers=self.headers,
            model=model or prompt.model,
            target=target,
            is_streamed=prompt.is_streamed,
            max_tokens=prompt.max_tokens,
            tells_usage=prompt.tells_usage,
            prompt_bytes=len(prompt.stream),
            hashes=hashes,
            turn=turn,
            subset=self.subset,
            session=session_id(pool, self.session) if self.session else "",
        )


def intake_of(headers: Headers, metadata: Metadata) -> Intake:
    """The head of a request from its headers, pseudo headers among them, and the gateway's metadata."""
    method, path = "GET", "/"
    kept: dict[bytes, bytes] = {}
    removed: dict[str, None] = {}
    for name, value in headers:
        if name == ":method":
            method = value.decode("latin-1")
        elif name == ":path":
            path = value.partition(b"?")[0].decode("latin-1")
        elif name in STEERING:
            if name != ENDPOINT_HEADER:
                removed[name] = None
            if name == EXPLAIN_HEADER:
                kept[name.encode()] = value
        else:
            kept[name.encode("utf-8", "replace")] = value
    own = metadata.get(OWN_NAMESPACE)
    if own:
        for name in PRIORITY_HEADERS:
            if isinstance(said := own.get(name), str):
                kept[name.encode()] = said.encode("latin-1", "replace")
        if isinstance(target := own.get(TARGET_KEY), str) and target:
            kept[TARGET_HEADER.encode()] = target.encode()
        if isinstance(session := own.get(SESSION_KEY), str) and session:
            return Intake(method, path, kept, tuple(removed), _subset(own), session)
        if tried := tried_in(metadata):
            return Intake(method, path, kept, tuple(removed), _subset(metadata.get(SUBSET_NAMESPACE)), tried=tried)
    return Intake(method, path, kept, tuple(removed), _subset(metadata.get(SUBSET_NAMESPACE)))


def tried_in(metadata: Metadata) -> tuple[Try, ...]:
    """Endpoints that failed, as Infergate's gateway says it of a request, or of one that it chose them for."""
    said = metadata.get(OWN_NAMESPACE, {}).get(TRIED_KEY)
    return read_tried(said) if isinstance(said, str) else ()


def _subset(hints: Mapping[str, object] | None) -> frozenset[str] | None:
    """Source: endpoint picker protocol, subset: where it is given, an empty one allows nothing."""
    if hints is None or SUBSET_KEY not in hints:
        return None
    return frozenset(endpoints_in(hints[SUBSET_KEY]))
