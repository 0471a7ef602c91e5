"""One Gateway in a proxy's words: servers, matches, rules, upstreams, pools. No Kubernetes, no nginx syntax.

Resources appear only as keys, so that a rendered fragment can name the one that it comes from.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from controller.ir.certificates import Certificate as Certificate
from controller.ir.filters import Filter
from controller.ir.policies import BackendTls, ClientValidation, Retry, Session, Timeouts
from controller.ir.streams import StreamServer
from controller.pools import Pool
from controller.resources.meta import Key

BASE_MODEL_HEADER: Final = "x-gateway-base-model-name"
MODEL_HEADERS: Final = frozenset({BASE_MODEL_HEADER, "x-gateway-model-name"})
"""Headers that are computed from what a request names in its body, path or query, whatever a client sends."""


class PathKind(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True)
class PathMatch:
    """Matches the path of a request, decoded and with dot segments resolved."""

    kind: PathKind
    value: str
    """Decoded. A prefix has no trailing slash, is empty for `/`, and matches by whole segments. A regular expression
    has no captures and is anchored at both ends by whoever uses it."""


@dataclass(frozen=True)
class ValueMatch:
    """Matches a header or a query parameter by name and value."""

    name: str
    """Lower-case for a header, as written for a query parameter."""
    value: str
    """The value, or a regular expression without captures that the whole value must match."""
    is_regex: bool = False


@dataclass(frozen=True)
class Match:
    """All conditions hold together."""

    path: PathMatch
    method: str | None = None
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    """Matched against the first occurrence of the parameter; an exact value is compared decoded."""
    call: tuple[int, int, int] | None = None
    """Of a call of gRPC, what decides its precedence: 0 for names, 1 for regular expressions, 2 where any call matches;
    then the characters of the service and of the method."""


@dataclass(frozen=True)
class ToUpstream:
    """Goes to the endpoints of a Service, each in turn."""

    upstream: str
    """Name of an Upstream of the same GatewayConfig."""


@dataclass(frozen=True)
class ToPool:
    """Goes to the endpoint of an InferencePool that the picker chooses."""

    pool: str
    """Name of a Pool of the same GatewayConfig."""
    tls: BackendTls | None = None
    """None: in plain text."""


@dataclass(frozen=True)
class ToStatus:
    """Answered by the gateway itself: a backend that does not resolve, or has no endpoint."""

    status: int
    reason: str
    """For a reader of the rendered file and of the answer: why there is no backend."""


Target = ToUpstream | ToPool | ToStatus


@dataclass(frozen=True)
class Backend:
    """One of the places among which a rule divides its requests."""

    target: Target
    weight: int
    """0 gets nothing. Shares are weights over their sum."""
    filters: tuple[Filter, ...] = ()
    """Applied after those of the rule, in order."""


@dataclass(frozen=True)
class Priority:
    """What a rule says of the priority of its requests to pools. None says nothing."""

    fixed: int | None = None
    """Of all of them, whatever they claim."""
    default: int | None = None
    """Of those that claim none."""
    cap: int | None = None
    """The highest that a claim gives."""


NO_PRIORITY = Priority()


@dataclass(frozen=True)
class Rule:
    """What happens to the requests that one of its matches catches."""

    route: Key
    index: int
    """0-based position in the route's rules."""
    name: str
    """The rule's own name, empty without one."""
    filters: tuple[Filter, ...]
    """In order. A Redirect answers; then backends are not used."""
    backends: tuple[Backend, ...]
    """Without a backend of positive weight the rule answers 500."""
    match: int | None = None
    """0-based position in the rule's matches when what happens depends on the match that caught the request; None when
    all matches of the rule share it."""
    priority: Priority = NO_PRIORITY
    sticky_header: str = ""
    """Name, in lower case, of the header whose value keeps a user on one backend; empty: each request is drawn anew."""
    timeouts: Timeouts | None = None
    """None: as everywhere."""
    takes_calls: bool = False
    """Requests are calls of gRPC: streams in both directions, with trailers, and failures in the shape of gRPC."""
    retry: Retry | None = None
    """None: endpoints of a Service are asked one after the other while they cannot be reached."""
    session: Session | None = None
    """None: each request is on its own."""

    @cached_property
    def id(self) -> str:
        """`namespace/route/index` or `namespace/route/index.match`, after `grpc/` for a rule that takes calls: unique
        in a GatewayConfig, and stable while the route's rules keep their order.
        """
        position = str(self.index) if self.match is None else f"{self.index}.{self.match}"
        return f"{'grpc/' if self.takes_calls else ''}{self.route.namespace}/{self.route.name}/{position}"


@dataclass(frozen=True)
class Case:
    """One match of one rule."""

    match: Match
    rule: Rule


@dataclass(frozen=True)
class Location:
    """What answers for one path, or for all below it, on one server."""

    path: str
    """Decoded. Ends with a slash when it stands for all that is below."""
    is_exact: bool
    cases: tuple[Case, ...]
    """Every case that can hold for these paths, in order of precedence; the first that holds serves the request. A case
    that always holds is the last one. Paths are decided by the location, but for regular expressions."""

    @property
    def is_complete(self) -> bool:
        """Whether some case always holds; otherwise the rest is answered 404."""
        return bool(self.cases) and is_unconditional(self.cases[-1].match)


def is_unconditional(match: Match) -> bool:
    """Whether a match holds for every request whose path it covers."""
    return match.path.kind is not PathKind.REGEX and not (match.method or match.headers or match.query)


@dataclass(frozen=True)
class Server:
    """What answers for some hostnames on a port."""

    owner: Key
    """The Gateway or ListenerSet that has the listener."""
    listener: str
    """Name of the listener, for a reader."""
    port: int
    hostnames: tuple[str, ...]
    """Sorted, lower-case; a leading `*.` covers one or more labels; `*` is any host that no other server has."""
    certificates: tuple[Certificate, ...]
    """Empty on a port without TLS."""
    locations: tuple[Location, ...]
    """Sorted by path; a path without one is answered 404."""
    rules: tuple[Rule, ...]
    """The rules that the locations name, sorted by id."""
    max_body_size: int | None = None
    """Bytes of a request's body; larger ones are answered 413. None: as everywhere."""
    is_elsewhere: bool = False
    """Whether connections for these hostnames never come here: they are a StreamServer's of the same port. A request
    for one of them came over a connection that was opened for another host."""
    client_certificate: Certificate | None = None
    """Shown to backends that are spoken to in TLS."""
    client_validation: ClientValidation | None = None
    """None asks clients for no certificate."""

    @property
    def is_tls(self) -> bool:
        return bool(self.certificates)


@dataclass(frozen=True)
class Upstream:
    """Endpoints of a Service port."""

    name: str
    """`namespace/service:port`, unique in a GatewayConfig."""
    source: Key
    endpoints: tuple[str, ...]
    """`ip:port`, sorted, at least one."""
    speaks_http2: bool = False
    """Without asking first; else HTTP/1.1."""
    tls: BackendTls | None = None
    """None: in plain text."""


@dataclass(frozen=True)
class GatewayConfig:
    """Everything one data plane serves."""

    name: str
    """`namespace/name` of the Gateway, or what stands for all of them where they share a data plane."""
    servers: tuple[Server, ...]
    """Sorted by port and hostnames."""
    upstreams: tuple[Upstream, ...]
    """Sorted by name."""
    pools: tuple[Pool, ...]
    """Sorted by name."""
    base_models: tuple[tuple[str, str], ...] = ()
    """(name of a model, its base model), sorted; a base model is its own."""
    streams: tuple[StreamServer, ...] = ()
    """Sorted by port, transport, mode and hostnames."""
    stream_upstreams: tuple[Upstream, ...] = ()
    """Of `streams`, sorted by name. One of datagrams ends in `/udp`."""
