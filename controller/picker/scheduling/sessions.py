"""Session affinity: requests of one session go to one endpoint.

A session is told by a header or a cookie of the client. It is bound to the endpoint that got its first request, and
moves only when that endpoint is no more. Where other replicas of the gateway may have bound it, an unbound session is
hashed to an endpoint, so that all of them agree.

Or the client keeps the endpoint itself, as a token in a header of each answer, which it sends back.
"""

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from controller.headers import SESSION_TOKEN_HEADER
from controller.picker.endpoints import Endpoint
from controller.picker.requests import PickRequest
from controller.picker.scheduling.base import Surroundings
from controller.plugins.parameters import EncodedEndpointHeader, SessionId

MOST_SESSIONS: Final = 100_000
"""Bindings kept in a pool, about 30 MB."""

_TOKEN: Final = EncodedEndpointHeader()
_TOKEN_HEADER: Final = SESSION_TOKEN_HEADER.encode()
_ID: Final = SessionId()


@dataclass(slots=True)
class _Binding:
    endpoint: "weakref.ref[Endpoint]"
    used_at: float


@dataclass(frozen=True)
class _SessionAffinity:
    surroundings: Surroundings
    strategy: str = "encoded_endpoint_header"
    """`session_id`: the endpoint is remembered for an id. Else the client is told it, and says it again."""
    encoded_endpoint_header_config: EncodedEndpointHeader = _TOKEN
    session_id_config: SessionId = _ID

    def sent(self, request: PickRequest, endpoint: Endpoint, *, now: float) -> None:
        """See `Witness`."""
        if self.strategy != "session_id":
            request.session_token = _token(endpoint)
            return
        session = self._session(request)
        if session is None:
            return
        bindings = self._bindings
        binding = bindings.get(session)
        if binding is None or _living(binding) is None:
            bindings[session] = binding = _Binding(weakref.ref(endpoint), now)
        binding.used_at = now
        bindings.move_to_end(session)
        while bindings:
            oldest = next(iter(bindings))
            if (
                len(bindings) <= MOST_SESSIONS
                and bindings[oldest].used_at >= now - self.session_id_config.eviction_ttl_seconds
            ):
                return
            del bindings[oldest]

    def _bound(self, request: PickRequest, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """The endpoint that a request's session belongs to; None when it belongs to none of these."""
        if self.strategy != "session_id":
            token = request.headers.get(_TOKEN_HEADER, b"")
            return next((endpoint for endpoint in endpoints if _token(endpoint) == token), None) if token else None
        session = self._session(request)
        if session is None:
            return None
        binding = self._bindings.get(session)
        bound = _living(binding) if binding else None
        if bound is not None:
            return bound
        if not self.surroundings.replicas:
            return None
        return max(endpoints, key=lambda one: xxhash.xxh3_64_intdigest(one.address.encode(), session))

    def _session(self, request: PickRequest) -> int | None:
        """The session of a request as a number, so that what a client sends is not kept."""
        for source in self.session_id_config.sources:
            if source.cookie:
                name = _cookie(request.headers.get(b"cookie", b""), source.cookie.encode())
            else:
                name = request.headers.get((source.header or "").lower().encode())
            if name:
                return xxhash.xxh3_64_intdigest(name)
        return None

    @property
    def _bindings(self) -> OrderedDict[int, _Binding]:
        """By session, the least recently used first."""
        places = "/".join(source.header or f"cookie {source.cookie}" for source in self.session_id_config.sources)
        return self.surroundings.memory.keep(f"sessions/{places}", OrderedDict[int, _Binding])


@dataclass(frozen=True)
class SessionAffinityScorer(_SessionAffinity):
    """1 for the endpoint of the session, 0 for the others."""

    def score(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[float]:
        """See `Scorer`."""
        bound = self._bound(request, endpoints)
        return [1.0 if endpoint is bound else 0.0 for endpoint in endpoints]


@dataclass(frozen=True)
class SessionAffinityFilter(_SessionAffinity):
    """Only the endpoint of the session, if it is there; else all."""

    def filter(self, request: PickRequest, endpoints: Sequence[Endpoint], *, now: float) -> Sequence[Endpoint]:
        """See `Filter`."""
        bound = self._bound(request, endpoints)
        return [bound] if bound is not None and bound in endpoints else endpoints


def _living(binding: _Binding) -> Endpoint | None:
    endpoint = binding.endpoint()
    return None if endpoint is None or endpoint.retired else endpoint


def _token(endpoint: Endpoint) -> bytes:
    """What a client is told of an endpoint, which names neither it nor its pod. A name may be that of several."""
    return xxhash.xxh3_128_hexdigest(f"{endpoint.name} {endpoint.address}".encode()).encode()


def _cookie(header: bytes, name: bytes) -> bytes | None:
    """The value of a cookie. Source: RFC 6265, section 4.2.1."""
    for pair in header.split(b";"):
        found, equals, value = pair.strip().partition(b"=")
        if equals and found == name:
            return value
    return None
