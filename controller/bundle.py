"""What the control plane hands to a data plane: the only thing that the agent and the picker know of it.

A bundle has two parts with a life of their own. The *files* are one nginx configuration and change with a reload;
their digest is the version. The *pools* name the endpoints behind each InferencePool; they come and go without a
reload and carry an etag.

The names of headers, files and fields that nginx, agent and picker share are here too, so that none of them is written
twice.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from controller.plugins.types import DEFAULT_POLICY, AppliedPolicy

POOLS_FILE: Final = "pools.json"
"""The pools of a data plane as JSON, in the directory that the picker follows."""

DIALED_FILE: Final = "dialed.json"
"""Backends behind the dialer as JSON, in a bundle, and in the state directory for the dialer to follow."""

VERSION_PATH: Final = "/infergate/version"
"""Asked on the control socket of nginx; the answer's body is the version of the worker that answered."""

COMPLETIONS_FILE: Final = "run/completions.log"
"""Where nginx tells the picker what became of requests, one JSON object a line, in the state directory."""

FIRST_BYTES_PATH: Final = "/first-bytes"
"""Where nginx posts to the picker that answers began, one JSON object a line; answered 204."""

BASE_MODELS_PATH: Final = "/base-models"
"""Where nginx asks the picker for the base models of what the pools serve: a JSON object by name, with an ETag."""

POOL_HEADER: Final = "x-infergate-pool"
"""From nginx to the picker: `namespace/name` of the pool to pick from."""
NAMED_MODEL_HEADER: Final = "x-gateway-model-name"
"""From nginx to the picker: the model that the request names, where nginx read it."""
POOLS_HEADER: Final = "x-infergate-pools"
"""From nginx to the picker: names of the pools that a question for models is about, with commas between them: those of
the rule where it has several, or of all rules of a place where none has the request. Else absent."""
THEN_HEADER: Final = "x-infergate-then"
"""From nginx to the picker: the named location that serves the picked request."""
REWRITES_HEADER: Final = "x-infergate-rewrites"
"""From nginx to the picker: the named location that serves the request when it is to name another model; absent where
nginx cannot change that."""
TARGET_HEADER: Final = "x-infergate-target"
"""From the picker to nginx: the model that the request names instead. From nginx to the picker: the one that was chosen
on the first pick of the request."""
TRIED_HEADER: Final = "x-infergate-tried"
"""From nginx to the picker: endpoints that failed before, oldest first; empty on a first pick.

Each is `ip:port=OUTCOME;` with a TryOutcome.
"""
ID_HEADER: Final = "x-infergate-request"
"""From nginx to the picker: nginx's own id of the request, 32 hexadecimal digits, the same in the completion feed."""
ENDPOINT_HEADER: Final = "x-gateway-destination-endpoint"
"""From the picker, or the relay, to nginx: `ip:port` of the endpoint that serves the request. From nginx to either:
`session_id` of the endpoint that the session of the request is on; absent without one."""
STREAMS_HEADER: Final = "x-infergate-streams"
"""From the picker to nginx: `1` when the request asks for its answer token by token, so that nginx tells of the first
byte."""
USAGE_HEADER: Final = "x-infergate-usage"
"""From the picker to nginx: `1` when nginx is to read from the answer how many tokens it took. From the relay to nginx,
as a trailer: what it has read, `PROMPT/CACHED/COMPLETION`, with nothing for what the answer does not tell."""
MODEL_HEADER: Final = "x-infergate-model"
"""From the picker to nginx: the model that the request names, for the access log."""
PICK_HEADER: Final = "x-infergate-pick"
"""From the relay to nginx: seconds until the picker chose, for the access log."""

DIALED_HEADER: Final = "x-infergate-dialed"
"""From nginx to the relay: the stem of the sockets behind which the dialer has the endpoints; empty in plain text."""

CONNECTION_HEADER: Final = "x-infergate-connection"
"""From nginx to the relay: what the client's `Connection` says, but for what is said in most requests; and behind a
semicolon the names of headers that the rule sets, which are no client's to remove."""

EXPLAIN_HEADER: Final = "x-infergate-explain"
"""From the client: `1` asks why its endpoint was chosen. From the picker, through nginx to the client: why, as JSON."""

PRIORITY_HEADERS: Final = ("x-infergate-priority", "x-infergate-priority-cap", "x-infergate-priority-default")
"""From nginx to the picker: what a route says of the priority of its requests; see the picker's flow control."""

STEERING_HEADERS: Final = (
    ID_HEADER,
    POOL_HEADER,
    POOLS_HEADER,
    THEN_HEADER,
    TRIED_HEADER,
    REWRITES_HEADER,
    TARGET_HEADER,
    ENDPOINT_HEADER,
    STREAMS_HEADER,
    USAGE_HEADER,
    MODEL_HEADER,
    EXPLAIN_HEADER,
    *PRIORITY_HEADERS,
    "x-gateway-destination-endpoint-fallbacks",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
)
"""Headers that steer the gateway: removed from what clients send before a model server sees it, and from answers."""


def session_id(backend: str, address: str) -> str:
    """What a session bears of its endpoint, 16 hexadecimal digits. `nginx/njs/sessions.js` makes the same."""
    return hashlib.sha256(f"{backend} {address}".encode()).hexdigest()[:16]


class FailureMode(StrEnum):
    """What happens to requests of a pool whose picker cannot be reached. Source: InferencePool v1, failureMode."""

    FAIL_OPEN = "FailOpen"
    FAIL_CLOSE = "FailClose"


class Engine(StrEnum):
    """Model server programs whose metrics are understood; values are those of the label that names one."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_CPP = "llamacpp"


class TryOutcome(StrEnum):
    """How a try failed, in nginx's eyes."""

    UNREACHABLE = "unreachable"
    """No connection: the request never got there."""
    CLOSED = "closed"
    """The connection ended before an answer."""
    TIMEOUT = "timeout"
    """No answer in time; the endpoint may still work on it."""
    FAILED = "failed"
    """Anything else."""


class PoolEndpoint(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One address that serves a pool: a pod and one of the pool's target ports, or an address of a slice."""

    address: str
    """`ip:port`, an IPv6 address in brackets."""
    name: str
    """`namespace/pod`, or `namespace/slice` for an address of an EndpointSlice; unique together with `address`."""
    labels: dict[str, str] = {}
    engine: Engine | None = None
    """From the engine label of the pod; None lets the picker find it out."""
    uid: str = ""
    """Changes when a pod of the same name and address is another pod."""


class ModelTarget(msgspec.Struct, frozen=True, rename="camel"):
    """A model that requests are given instead of the one that they name."""

    model: str
    weight: int
    """At least 0; 0 gets nothing. Shares are weights over their sum."""


class ModelRewrite(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Which models requests are given that name one of some models, or any."""

    source: str
    """`Kind namespace/name` of the resource that says so, and the rule in it, for a reader: unique in a pool."""
    targets: tuple[ModelTarget, ...]
    """In the order of the resource; the sum of their weights is above 0."""
    models: tuple[str, ...] = ()
    """Exact names, sorted; without one, every model that no other rewrite of the pool names."""
    sticky_header: str = ""
    """Name, in lower case, of the header whose value keeps a user on one target; empty: each request is drawn anew."""


class PickerTls(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How an external picker's TLS is checked."""

    ca: str = ""
    """Certificates of its authorities, as PEM. Empty: nothing is checked, as pickers make their own certificate."""
    server_name: str = ""
    """Name that is asked for, and that the certificate has unless other names are given; empty: the address."""
    hostnames: tuple[str, ...] = ()
    """The certificate has one of these or of `uris`; a leading `*.` covers one label."""
    uris: tuple[str, ...] = ()


class ExternalPicker(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A picker that is a Service of its own and speaks ext_proc."""

    authority: str
    """Name under which it is spoken to: `service.namespace.svc:port`."""
    addresses: tuple[str, ...] = ()
    """`ip:port` of its ready endpoints, sorted."""
    tls: PickerTls | None = None
    """None: it is spoken to in plain text."""


class PoolTls(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """How the endpoints of a pool are known that are spoken to in TLS."""

    server_name: str
    """Asked for in the handshake, and in the certificate unless other names are there."""
    authorities: str
    """Certificates in PEM, from one of which an endpoint's must come."""
    hostnames: tuple[str, ...] = ()
    """As in `Dialed`; without these and `uris` the certificate has `server_name`."""
    uris: tuple[str, ...] = ()


class Pool(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The endpoints behind one InferencePool."""

    name: str
    """`namespace/name`."""
    endpoints: tuple[PoolEndpoint, ...] = ()
    """Ready endpoints, sorted by address."""
    failure_mode: FailureMode = FailureMode.FAIL_CLOSE
    policy: AppliedPolicy = DEFAULT_POLICY
    """What PickerPolicy and InferenceObjectives say of the pool."""
    rewrites: tuple[ModelRewrite, ...] = ()
    """In order of precedence: the first that names the model of a request has it, then the first that names none. What
    can never be met is left out."""
    speaks_http2: bool = False
    """Whether its endpoints take HTTP/2 without TLS, and nothing else."""
    external: ExternalPicker | None = None
    """Who picks; None: the picker beside nginx."""
    tls: PoolTls | None = None
    """None: in plain text."""
    is_prioritized: bool = False
    """Whether a route says how important some of its requests are."""
    lists_models: bool = False
    """Of a pool with an external picker: whether the picker beside nginx is asked for its models, with those of other
    pools or for their base models."""


class Pools(msgspec.Struct, frozen=True, rename="camel"):
    """Every pool of one data plane."""

    etag: str
    """Digest of the pools; the same pools give the same etag."""
    pools: tuple[Pool, ...]
    """Sorted by name."""


class Completion(msgspec.Struct, frozen=True, rename="camel"):
    """One finished inference request, as nginx tells the picker."""

    id: str
    """As in `ID_HEADER`."""
    pool: str
    endpoint: str
    """`ip:port` of the last endpoint tried; empty when the picker chose none."""
    tried: str
    """As in `TRIED_HEADER`: endpoints that failed before the last one."""
    status: int
    """What the client got; 499 when it hung up."""
    upstream_status: str
    """nginx's $upstream_status: one status per upstream asked, picks included, joined by ` : ` (or `, ` inside one
    upstream); `-` where there was no answer."""
    duration: float
    """Seconds from the first byte of the request to the last of the answer."""
    first_byte: float | None
    """Seconds from the first byte of the request to the answer's headers; None without an answer."""
    waited: float | None
    """Of a streamed answer: seconds from sending the request to the endpoint until the body's first byte."""
    sent: int
    """Bytes sent to the client."""
    prompt_tokens: int | None = None
    """As the answer's usage says; None when it does not."""
    cached_tokens: int | None = None
    """Of the prompt's tokens, those that the endpoint had in its cache; as above."""
    completion_tokens: int | None = None
    """Of the answer; as above."""
    is_whole: bool = True
    """Whether the answer came to its end, which one does not that its client or the endpoint breaks off."""


class FirstByte(msgspec.Struct, frozen=True, rename="camel"):
    """The first byte of an answer's body came, as nginx tells the picker while the request runs."""

    id: str
    """As in `ID_HEADER`."""
    waited: float
    """Seconds from sending the request to the endpoint."""


class DialedEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint behind a socket of the dialer."""

    address: str
    """`ip:port`, an IPv6 address in brackets."""
    socket: str
    """Relative to the state directory; of this backend alone."""


class Dialed(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Endpoints that nginx reaches through the dialer, and how they are known."""

    server_name: str
    """Asked for in the handshake."""
    authorities: str
    """Certificates in PEM, from one of which that of an endpoint must come."""
    endpoints: tuple[DialedEndpoint, ...] = ()
    """Those of a Service. The endpoints of a pool are in the pools file."""
    pool: str = ""
    """`namespace/name` of the pool whose endpoints are dialed; empty for none."""
    stem: str = ""
    """Of the sockets of the pool's endpoints, see `dialed_socket`."""
    hostnames: tuple[str, ...] = ()
    """An endpoint's certificate has one of these or of `uris`; a leading `*.` covers one label."""
    uris: tuple[str, ...] = ()
    chain: str = ""
    """In PEM, shown to endpoints; empty for none."""
    key: str = ""
    """Of `chain`, in PEM."""
    http2: bool = False
    """Else HTTP/1.1."""

    def __repr__(self) -> str:
        return f"Dialed({self.server_name!r}, {self.pool or f'{len(self.endpoints)} endpoints'})"


class DialedBackends(msgspec.Struct, frozen=True, rename="camel"):
    """Every backend behind the dialer."""

    backends: tuple[Dialed, ...]


def decode_dialed(text: bytes) -> DialedBackends:
    """Backends from the JSON of `DIALED_FILE`.

    Raises ValueError when the text is not of that shape.
    """
    return msgspec.json.decode(text, type=DialedBackends)


def encode_dialed(backends: DialedBackends) -> bytes:
    """Backends as the JSON of `DIALED_FILE`. It may hold keys."""
    return msgspec.json.encode(backends)


def dialed_socket(stem: str, address: str) -> str:
    """Where the dialer listens for an endpoint `ip:port`, relative to the state directory."""
    return f"{stem}_{address.translate(_IN_FILE_NAMES)}.sock"


def dialed_endpoints(dialed: Dialed, pools: Pools) -> tuple[DialedEndpoint, ...]:
    """Every endpoint of a backend, those of its pool included."""
    if not dialed.pool:
        return dialed.endpoints
    addresses = {item.address for pool in pools.pools if pool.name == dialed.pool for item in pool.endpoints}
    return tuple(DialedEndpoint(address, dialed_socket(dialed.stem, address)) for address in sorted(addresses))


def decode_completion(line: bytes) -> Completion:
    """A completion from one line of the JSON lines that nginx writes to `COMPLETIONS_FILE`.

    Raises ValueError when the line is none.
    """
    return _COMPLETION.decode(line)


def decode_first_byte(line: bytes) -> FirstByte:
    """A first byte from one line of the JSON lines that nginx posts to `FIRST_BYTES_PATH`.

    Raises ValueError when the line is none.
    """
    return _FIRST_BYTE.decode(line)


_IN_FILE_NAMES: Final = str.maketrans({":": "_", "[": None, "]": None})
"""nginx takes a colon for the end of a socket's path. The same is in `nginx/njs/paths.js`."""
_COMPLETION: Final = msgspec.json.Decoder(Completion)
_FIRST_BYTE: Final = msgspec.json.Decoder(FirstByte)


def pools_of(pools: tuple[Pool, ...]) -> Pools:
    """Pools with their etag, sorted by name."""
    ordered = tuple(sorted(pools, key=lambda pool: pool.name))
    return Pools(etag=hashlib.sha256(msgspec.json.encode(ordered)).hexdigest()[:16], pools=ordered)


def encode_pools(pools: Pools) -> bytes:
    """Pools as the JSON of `POOLS_FILE`, indented for a reader, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(pools), indent=2) + b"\n"


def decode_pools(text: bytes) -> Pools:
    """Pools from the JSON of `POOLS_FILE`.

    Raises ValueError when the text is not of that shape.
    """
    return msgspec.json.decode(text, type=Pools)


@dataclass(frozen=True, order=True)
class BundleFile:
    """One file of a bundle."""

    path: str
    """Relative to the release directory, with `/`, without `..`."""
    content: bytes = field(repr=False)
    secret: bool = False
    """Written with mode 0600 and never shown."""


@dataclass(frozen=True)
class Bundle:
    """Everything that one data plane needs to serve one version."""

    gateway: str
    """`namespace/name` of the Gateway, or the name of the whole data plane where several share one nginx."""
    version: str
    """Digest of the files: 16 hexadecimal digits."""
    files: tuple[BundleFile, ...]
    """Sorted by path; among them `nginx.conf`."""
    pools: Pools


def version_of(files: Mapping[str, bytes]) -> str:
    """Digest of files by path: 16 hexadecimal digits, independent of the order they are given in."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode())
        digest.update(files[path])
    return digest.hexdigest()[:16]
