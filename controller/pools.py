"""The endpoints behind each InferencePool of a data plane, and what is said of their requests.

They come and go without a reload of nginx. Whoever picks, relays or dials follows them in a file.
"""

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

from controller.plugins.types import DEFAULT_POLICY, AppliedPolicy

POOLS_FILE: Final = "pools.json"
"""The pools of a data plane as JSON, in the directory that the picker follows."""


class FailureMode(StrEnum):
    """What happens to requests of a pool whose picker cannot be reached. Source: InferencePool v1, failureMode."""

    FAIL_OPEN = "FailOpen"
    FAIL_CLOSE = "FailClose"


class Engine(StrEnum):
    """Model server programs whose metrics are understood; values are those of the label that names one."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_CPP = "llamacpp"


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
    """An endpoint's certificate has one of these or of `uris`; a leading `*.` covers one label."""
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
