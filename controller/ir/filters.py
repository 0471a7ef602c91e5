"""What a rule does to a request or an answer on its way, in a proxy's words.

Each type here has one resolver in `topology/filters.py` and one template in `templates/filters/`, named after it.
"""

from dataclasses import dataclass

from controller.ir.policies import BackendTls


@dataclass(frozen=True)
class HeaderChange:
    """Changes to headers. Names are lower-case; of several changes to one name the last of each list holds."""

    assign: tuple[tuple[str, str], ...] = ()
    """(name, value): replaces what is there."""
    append: tuple[tuple[str, str], ...] = ()
    """(name, value): joined to what is there by a comma."""
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestHeaders:
    """Changes the headers that the backend receives."""

    change: HeaderChange


@dataclass(frozen=True)
class ResponseHeaders:
    """Changes the headers that the client receives."""

    change: HeaderChange


@dataclass(frozen=True)
class FullPath:
    """The whole path is replaced; the query stays."""

    path: str


@dataclass(frozen=True)
class PrefixPath:
    """The part of the path that the match named is replaced, by whole segments; the query stays."""

    prefix: str
    """The path of the match, without a trailing slash; empty for `/`."""
    replacement: str
    """Without a trailing slash; empty for `/`."""


PathChange = FullPath | PrefixPath


@dataclass(frozen=True)
class Redirect:
    """Answers with a Location. None keeps what the request had."""

    status: int
    scheme: str | None = None
    hostname: str | None = None
    port: int | None = None
    """None: the well-known port of `scheme` when that is set, else the listener's port."""
    path: PathChange | None = None


@dataclass(frozen=True)
class Rewrite:
    """Changes the Host header or the path that the backend receives. None keeps what the request had."""

    hostname: str | None = None
    path: PathChange | None = None


@dataclass(frozen=True)
class Mirror:
    """Sends a copy of requests elsewhere, as the backend receives them. Its answer is dropped."""

    upstream: str
    """Name of an Upstream of the same GatewayConfig; empty: copies go to a pool."""
    numerator: int = 1
    """Of the share of requests that are copied, at least 1."""
    denominator: int = 1
    pool: str = ""
    """Name of a Pool of the same GatewayConfig; empty: copies go to an upstream."""
    tls: BackendTls | None = None
    """Of the pool; None: in plain text."""


@dataclass(frozen=True)
class Cors:
    """Tells browsers which other origins may use what is here, and answers their preflights."""

    origins: tuple[str, ...]
    """`scheme://host` or `scheme://host:port`, lower-case; `*` in a host covers one or more characters, alone any
    origin."""
    credentials: bool
    methods: tuple[str, ...]
    """`*` alone is any, here and below."""
    headers: tuple[str, ...]
    """That requests may have."""
    expose: tuple[str, ...]
    """Headers of answers that scripts may read."""
    max_age: int
    """Seconds for which a browser remembers a preflight."""


Filter = RequestHeaders | ResponseHeaders | Redirect | Rewrite | Mirror | Cors
