"""What the templates of servers loop over: rules with every name and header list worked out, and where they stand."""

from dataclasses import dataclass

from controller.ir.filters import PathChange, Redirect
from controller.ir.policies import Timeouts
from controller.ir.types import Rule, Server, ToPool, ToStatus, ToUpstream
from controller.render.certificates import TlsView
from controller.render.cors import CorsView
from controller.render.headers import AnswerHeaders, Header
from controller.render.hidden import Names
from controller.render.names import OF_SESSIONS
from controller.render.sessions import SessionView
from controller.render.splitting import SplitView
from controller.render.targets import drawn_pools


@dataclass(frozen=True)
class LocationView:
    path: str
    is_exact: bool
    rule: "RuleView | None"
    """What serves every request; None where a map chooses."""
    place: str
    """Tells the map who asks; empty where there is none."""
    chooser: str
    """The variable of the map, or what holds the one rule."""
    reads_model: bool
    """Whether the body is read for the model before a rule is chosen."""
    default: str
    """What serves requests for which the map has no choice."""
    pools: str = ""
    """Of all rules that the map chooses among, for a question for models that none of them has."""
    names_models: bool = False
    """Whether a model that none of them has is answered with those that there are."""

    @property
    def key(self) -> tuple[str, bool]:
        """Tells a location from the others of its server."""
        return (self.path, self.is_exact)

    @property
    def variable(self) -> str:
        """The variable of the map, as a script names it."""
        return self.chooser.removeprefix("$")


@dataclass(frozen=True)
class MirrorView:
    """An address that requests are copied to."""

    location: str
    upstream: str
    speaks_http2: bool
    module: str
    """As the backend's."""
    sample: SplitView | None
    """None: every request."""
    headers: tuple[Header, ...]
    answer: None
    hostname: str | None
    path: PathChange | None
    tls: TlsView | None

    @property
    def sample_variable(self) -> str:
        return self.sample.variable if self.sample else ""


@dataclass(frozen=True)
class BackendView:
    """One named location that sends requests to one target."""

    location: str
    serve_location: str
    """Where a picked request goes."""
    has_own_serve_location: bool
    """False: nothing is done to the request or the answer, and the location that all share will do."""
    target: ToUpstream | ToPool | ToStatus
    upstream: str
    """Name of the nginx upstream; empty without one."""
    speaks_http2: bool
    module: str
    """The module of nginx that sends requests: `grpc` for calls, else `proxy`. Its directives begin with it."""
    fails_open: bool
    headers: tuple[Header, ...] | None
    """None: nothing differs from what every backend receives."""
    relay_headers: tuple[Header, ...] | None
    """Of requests that go to the relay, which asks an external picker; None: they do not."""
    answer: AnswerHeaders | None
    hostname: str | None
    path: PathChange | None
    timeouts: Timeouts | None
    mirrors: tuple[MirrorView, ...]
    cors: CorsView | None
    retry: "RetryView | None"
    tls: TlsView | None
    endpoint_variable: str
    """Of a pool that is spoken to in TLS: holds the nginx upstream of the endpoint that was picked; else empty."""
    rewritten_location: str = ""
    """Where a picked request goes whose model is another one; empty where none is."""
    rewritten_headers: tuple[Header, ...] = ()
    """What it sends."""
    pools: str = ""
    """Of all backends of the rule, for a question for models; empty where there is but one."""
    tells_more: bool = False
    """Whether the picker is told more of a request than its pool."""
    redirect: Redirect | None = None
    """Answers for this backend; None: it is asked."""
    redirect_port: int | None = None
    """As that of a rule."""
    redirect_headers: tuple[Header, ...] = ()
    session: str = ""
    """What the script needs to know of sessions, as JSON; empty without them."""

    @property
    def relayed_location(self) -> str:
        """Where the relay is asked when questions for the models of several pools leave `location` by another way; else
        empty."""
        return f"{self.location}/relayed" if self.relay_headers and self.pools and self.redirect is None else ""

    @property
    def models_location(self) -> str:
        """Where such questions go."""
        return f"{self.location}/models"

    @property
    def first_upstream(self) -> str:
        """Where the first try goes: sessions have an upstream of their own, which asks for their endpoint first."""
        return f"{self.upstream}{OF_SESSIONS}" if self.session else self.upstream


@dataclass(frozen=True)
class RetryView:
    """The tries of a request that follow the first one."""

    locations: tuple[str, ...]
    """In order, at least one."""
    caught: tuple[int, ...]
    """Statuses after which comes the next."""
    has_codes: bool
    """Whether a backend's own answer can be a failure."""
    backoff_ms: int
    waits: bool
    """Whether there is something to do before a try."""


@dataclass(frozen=True)
class RuleView:
    rule: Rule
    location: str
    is_named: bool
    """Whether something jumps to its location; else it stands in the locations of its paths only."""
    target: str
    """Where to send requests for it: its location, or the variable of its split."""
    redirect: Redirect | None
    redirect_port: int | None
    """Written into the Location of the redirect; None where the scheme implies it."""
    redirect_headers: tuple[Header, ...]
    """Added to the redirect."""
    cors: CorsView | None
    """Of the redirect."""
    backends: tuple[BackendView, ...]
    """Those with a share, and those that sessions stay with. One alone stands in the location of the rule itself."""
    split: SplitView | None
    """Holds the location of the backend that was drawn; None where there is one to draw."""
    session: SessionView | None
    """Holds the location of the backend that a session is on; None where there is but one."""
    priorities: tuple[tuple[str, int], ...]
    """Variables that tell the picker, and their numbers, sorted."""

    @property
    def is_divided(self) -> bool:
        """Whether each backend has a location of its own."""
        return self.split is not None or self.session is not None


@dataclass(frozen=True)
class SharedView:
    """A named location for several rules."""

    location: str
    rules: tuple[RuleView, ...]
    """All of them to pools, or none."""

    @property
    def is_picked(self) -> bool:
        return bool(drawn_pools(view.rule for view in self.rules))

    @property
    def tells_more(self) -> bool:
        """Whether the picker is told more of some requests than their pool."""
        return any(view.backends[0].tells_more for view in self.rules)


@dataclass(frozen=True)
class ServerView:
    server: Server
    hostnames: tuple[str, ...]
    """As `server_name` takes them."""
    is_default: bool
    certificate_files: tuple[tuple[str, str], ...]
    """(chain, key), relative to nginx.conf."""
    client_certificate: tuple[str, str] | None
    """As above; shown to backends."""
    authorities: str
    """File of those that vouch for clients, relative to nginx.conf; empty where clients are not asked."""
    locations: tuple[LocationView, ...]
    rules: tuple[RuleView, ...]
    hidden: Names
    """Headers of backends; empty where the server hides what all do."""
    shared: tuple["SharedView", ...]

    @property
    def apart(self) -> tuple[RuleView, ...]:
        """The rules that share no location."""
        sharing = {id(rule) for place in self.shared for rule in place.rules}
        return tuple(rule for rule in self.rules if id(rule) not in sharing)

    @property
    def reads_models(self) -> bool:
        return any(location.reads_model for location in self.locations)

    @property
    def listener(self) -> str:
        """Names the listener among all."""
        return f"{self.server.owner.path}/{self.server.listener}"


@dataclass(frozen=True)
class CopiesView:
    """A server where copies of requests to pools are requests of their own."""

    socket: str
    upstream: str
    variable: str
    """Holds the location for a pool."""
    client_certificate: tuple[str, str] | None
    """As of other servers."""
    reads_models: bool
    """Whether a pool gives models other names."""
    rules: tuple[RuleView, ...]
    """One for each pool."""


@dataclass(frozen=True)
class PortView:
    port: int
    is_tls: bool
    socket: str
    """Where the servers listen; empty: on the port itself."""
    servers: tuple[ServerView, ...]
    has_default: bool
    listeners: tuple[tuple[str, str], ...]
    """(hostname, listener) that TLS names choose among, `*` for any. Empty where there is no choice: without TLS, or
    with one listener."""
