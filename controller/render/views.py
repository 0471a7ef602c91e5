"""What the templates loop over: the configuration with every name, map and header list worked out."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from controller.bundle import DIALED_HEADER, FailureMode, Pool, dialed_socket
from controller.ir.filters import Filter, Mirror, PathChange, Redirect, Rewrite
from controller.ir.policies import BackendTls, Retry, Timeouts
from controller.ir.streams import Transport
from controller.ir.types import (
    NO_PRIORITY,
    Certificate,
    GatewayConfig,
    Location,
    Priority,
    Rule,
    Server,
    Target,
    ToPool,
    ToStatus,
    ToUpstream,
    Upstream,
)
from controller.render.choosing import rule_maps
from controller.render.copies import copied_to_pools, copies_servers, copies_socket, copies_upstream
from controller.render.cors import CorsView, cors_of
from controller.render.dialed import dialed_pools, is_dialed, shown_to, sockets_of, stem_of
from controller.render.headers import (
    AnswerHeaders,
    Header,
    answer_headers,
    appended_headers,
    joined_variable,
    request_headers,
)
from controller.render.hidden import BASE, Names, beside, hidden_by
from controller.render.lookups import Exact, LookupMap
from controller.render.maps import Flag, Place, RuleMap, digest, header_variable, place_of
from controller.render.memory import Memory
from controller.render.quoting import expression, inside, name
from controller.render.sessions import (
    SessionView,
    backend_settings,
    is_kept,
    routes_of,
    session_view,
    with_session,
)
from controller.render.sharing import Plain, Sharing, sharing_of
from controller.render.weights import Split, splits
from controller.resources.meta import Key

_NO_RULE = "@infergate_error"
_SERVE = "@infergate_serve"
_OF_SESSIONS = "_sessions"


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


@dataclass(frozen=True, order=True)
class StickyView:
    """What tells users apart: a header, or the request where it has none."""

    variable: str
    header: str
    """Its variable."""


@dataclass(frozen=True)
class SplitView:
    """Divides requests by chance."""

    rule: Rule
    what: str
    """For a reader."""
    variable: str
    """Holds one of the values."""
    salt: str
    """What makes one split independent of another."""
    values: tuple[str, ...]
    """By the index of the share, as written into the file."""
    split: Split
    fine_split: Split | None
    sticky: "StickyView | None" = None
    """Whose value it goes by; None: every request by itself."""

    @property
    def source(self) -> str:
        return expression(self._drawn, self.salt) if self.salt else "$request_id"

    @property
    def fine_source(self) -> str:
        return expression(f"{self._drawn}fine", self.salt)

    @property
    def _drawn(self) -> str:
        return f"${{{self.sticky.variable[1:]}}}" if self.sticky else "${request_id}"


@dataclass(frozen=True)
class TlsView:
    """How a backend is known."""

    hostname: str
    authorities: str
    """File, relative to nginx.conf."""


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
    def first_upstream(self) -> str:
        """Where the first try goes: sessions have an upstream of their own, which asks for their endpoint first."""
        return f"{self.upstream}{_OF_SESSIONS}" if self.session else self.upstream


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
        return bool(_pools_of(view.rule for view in self.rules))

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


@dataclass(frozen=True)
class EndpointView:
    address: str
    upstream: str
    server: str
    """The address, or the socket behind which the dialer is."""


@dataclass(frozen=True)
class UpstreamView:
    """Endpoints of a Service port, as Gateways that show the same certificate reach them."""

    name: str
    source: Key
    servers: tuple[str, ...]
    """Addresses, or the sockets behind which the dialer is."""
    is_secured: bool
    routes: tuple[str, ...]
    """What sessions say of the servers, in their order; empty: it takes no sessions."""
    is_timed: bool
    """Whether a rule sends requests there for which it has less time than there may be need of."""


@dataclass(frozen=True)
class PoolView:
    """A pool; one behind the dialer, as Gateways that show the same certificate reach it."""

    pool: Pool
    upstream: str
    endpoints: tuple[EndpointView, ...]
    variable: str
    """Holds the upstream of the endpoint that was picked; empty for a pool in plain text, which shares them."""
    default: str
    """What that holds for an endpoint that has none, as written into the file."""


@dataclass(frozen=True)
class FlagView:
    flag: Flag
    users: tuple[str, ...]
    """The routes that ask for it, for a reader and to trace a refusal."""


@dataclass(frozen=True)
class ConfigView:
    ports: tuple[PortView, ...]
    upstreams: tuple[UpstreamView, ...]
    pools: tuple[PoolView, ...]
    endpoints: tuple[EndpointView, ...]
    """Of all pools in plain text, without repetition."""
    rule_maps: tuple[RuleMap, ...]
    lookups: tuple[LookupMap, ...]
    exacts: tuple[Exact, ...]
    jumps: tuple[tuple[str, str], ...]
    """(location of a rule, the one that it shares)."""
    targets: Mapping[str, str]
    """By the id of a rule: where to send requests for it."""
    flags: tuple[FlagView, ...]
    joined: tuple[tuple[str, str, str], ...]
    """(variable, the header's variable, quoted value where the client sent the header)."""
    splits: tuple[SplitView, ...]
    sticky: tuple[StickyView, ...]
    """Without repetition."""
    cors: tuple[CorsView, ...]
    """Without repetition."""
    sessions: tuple[SessionView, ...]
    copies: tuple[CopiesView, ...]

    @property
    def reads_models(self) -> bool:
        return any(server.reads_models for port in self.ports for server in port.servers)

    @property
    def has_relay(self) -> bool:
        return any(view.pool.external is not None for view in self.pools)


def config_view(config: GatewayConfig, *, memory: Memory | None = None, around: tuple[object, ...] = ()) -> ConfigView:
    """Everything the templates need of a configuration.

    `memory` is that of the views before, `around` what the templates are given beside views.
    """
    # By identity, since a location is compared by all that it leads to.
    places = {id(location): place_of(location) for server in config.servers for location in server.locations}
    maps = rule_maps(place for place in places.values() if place)
    own = [pool for pool in config.pools if pool.external is None]
    behind = dialed_pools(config)
    views = _Views(
        fail_open=frozenset(pool.name for pool in config.pools if pool.failure_mode is FailureMode.FAIL_OPEN),
        tls={item.name: tls_view(item.tls) for item in config.upstreams if item.tls and not is_dialed(item.tls)},
        dialed=frozenset(upstream.name for upstream in config.upstreams if is_dialed(upstream.tls)),
        rewriting=frozenset(pool.name for pool in own if pool.rewrites),
        refusing=frozenset(pool.name for pool in own if pool.policy.refuse_unknown_models),
        http2=frozenset(upstream.name for upstream in config.upstreams if upstream.speaks_http2),
        http2_pools=frozenset(pool.name for pool in config.pools if pool.speaks_http2),
        relayed=frozenset(pool.name for pool in config.pools if pool.external is not None),
        dialed_pools=behind,
        places=places,
        variables=maps.variables,
        memory=memory or Memory(),
    )
    sets = (
        views.fail_open,
        views.rewriting,
        views.refusing,
        views.http2,
        views.http2_pools,
        views.dialed,
        views.relayed,
    )
    views.memory.turn(*around, *sets, views.tls, behind)
    sharing = views.sharing(config)
    streams = {server.port for server in config.streams if server.transport is Transport.TCP}
    ports = tuple(
        _port_view(
            [views.server(server, sharing) for server in config.servers if server.port == port],
            is_shared=port in streams,
        )
        for port in sorted({server.port for server in config.servers})
    )
    rules = {view.rule.id: view for port in ports for server in port.servers for view in server.rules}
    filters = [item for view in rules.values() for item in _all_filters(view.rule)]
    secured = {target.pool for target in targets_of(config) if isinstance(target, ToPool) and target.tls}
    shown = shown_to(config)
    pools = tuple(
        _pool_view(pool, tls=behind.get(pool.name), shown=each, is_secured=pool.name in secured)
        for pool in config.pools
        for each in (shown if pool.name in behind else (None,))
    )
    splits = tuple(split for name in sorted(rules) for split in _splits_of(rules[name]))
    return ConfigView(
        ports=ports,
        upstreams=tuple(_upstream_views(config)),
        pools=pools,
        endpoints=tuple(
            {view.address: view for pool in pools if not pool.variable for view in pool.endpoints}.values()
        ),
        rule_maps=maps.maps,
        lookups=maps.lookups,
        exacts=maps.exacts,
        jumps=tuple(sorted((f"@{rule}", location) for rule, location in sharing.locations.items())),
        targets={name: view.target for name, view in rules.items()},
        flags=_flag_views(maps.maps),
        joined=tuple(
            (joined_variable(header), header_variable(header), expression(header_variable(header), ","))
            for header in appended_headers(filters)
        ),
        splits=splits,
        sticky=tuple(sorted({split.sticky for split in splits if split.sticky})),
        cors=_cors_views(rules.values()),
        sessions=tuple(view for name in sorted(rules) if (view := rules[name].session)),
        copies=tuple(views.copies(server) for server in copies_servers(config)),
    )


def targets_of(config: GatewayConfig) -> Iterable[Target]:
    """Where rules send requests, and copies to pools, with repetition."""
    for rule in (rule for server in config.servers for rule in server.rules):
        yield from (backend.target for backend in rule.backends)
        yield from copied_to_pools(rule)


def tls_view(tls: BackendTls) -> TlsView:
    return TlsView(hostname=tls.hostname, authorities=authorities_name(tls.authorities))


def authorities_name(certificates: bytes) -> str:
    """File name of authorities, relative to nginx.conf."""
    # Whole, so that nobody finds certificates of his own whose file would take the place of another.
    return f"tls/authorities_{hashlib.sha256(certificates).hexdigest()}.crt"


def certificate_name(certificate: Certificate) -> str:
    """File name, without ending, relative to nginx.conf."""
    return f"tls/{name(certificate.source.path)}"


def certificate_files(certificate: Certificate) -> tuple[str, str]:
    stem = certificate_name(certificate)
    return f"{stem}.crt", f"{stem}.key"


def _port_view(servers: Sequence[ServerView], *, is_shared: bool) -> PortView:
    return PortView(
        port=servers[0].server.port,
        is_tls=any(view.server.is_tls for view in servers),
        socket=socket_of_http(servers[0].server.port) if is_shared else "",
        servers=tuple(servers),
        has_default=any(view.is_default for view in servers),
        listeners=_listeners(servers),
    )


def _listeners(servers: Sequence[ServerView]) -> tuple[tuple[str, str], ...]:
    secure = [view for view in servers if view.server.is_tls]
    if len({view.listener for view in secure}) < 2:
        return ()
    return tuple(sorted((hostname, view.listener) for view in secure for hostname in view.server.hostnames))


@dataclass(frozen=True)
class _Bearing:
    """What of its server bears on a rule."""

    is_named: bool
    """Whether something jumps to it."""
    is_read: bool
    """Whether requests come by way of a place that reads their model."""
    hidden: Names
    """Headers of backends that the server hides."""


@dataclass(frozen=True)
class _Views:
    """What the views of servers and rules need to know of the whole configuration."""

    fail_open: Set[str]
    """Names of pools."""
    rewriting: Set[str]
    """Names of pools that give some models another name."""
    refusing: Set[str]
    """Names of pools that answer 404 for a model that they do not have."""
    http2: Set[str]
    """Names of upstreams that speak it."""
    tls: Mapping[str, TlsView]
    """By upstream, of those that nginx itself speaks TLS to."""
    dialed: Set[str]
    """Names of upstreams behind the dialer."""
    http2_pools: Set[str]
    relayed: Set[str]
    """Names of pools with an external picker."""
    dialed_pools: Mapping[str, BackendTls]
    """Of pools behind the dialer, by name."""
    places: Mapping[int, Place | None]
    """By the identity of a location."""
    variables: Mapping[str, str]
    memory: Memory

    def sharing(self, config: GatewayConfig) -> Sharing:
        reading = (place for server in config.servers for place in server.locations if self.reads_model(place))
        others = self.rewriting | self.http2_pools | self.relayed
        return sharing_of(
            (self.reached(server) for server in config.servers),
            plain=Plain(
                upstreams=frozenset(
                    upstream.name
                    for upstream in config.upstreams
                    if not (upstream.name in self.tls or upstream.name in self.http2 or upstream.name in self.dialed)
                ),
                pools=frozenset(pool.name for pool in config.pools if pool.name not in others),
            ),
            apart={case.rule.id for place in reading for case in place.cases},
        )

    def reached(self, server: Server) -> list[Rule]:
        """The rules that something jumps to."""
        places = (location for location in server.locations if not self.is_direct(location))
        found = {case.rule.id for location in places for case in location.cases}
        return [rule for rule in server.rules if rule.id in found]

    def server(self, server: Server, sharing: Sharing) -> ServerView:
        named = {rule.id for rule in self.reached(server)} - sharing.locations.keys()
        read = {case.rule.id for location in server.locations if self.reads_model(location) for case in location.cases}
        hidden = hidden_by(server, memory=self.memory)
        rules = {
            rule.id: self._known_rule(
                rule, server, _Bearing(is_named=rule.id in named, is_read=rule.id in read, hidden=hidden)
            )
            for rule in server.rules
        }
        shared: dict[str, list[RuleView]] = {}
        for rule in sorted(rules.keys() & sharing.locations.keys()):
            shared.setdefault(sharing.locations[rule], []).append(rules[rule])
        return ServerView(
            server=server,
            hostnames=tuple("_" if hostname == "*" else hostname for hostname in server.hostnames),
            is_default="*" in server.hostnames,
            certificate_files=tuple(certificate_files(item) for item in server.certificates),
            client_certificate=certificate_files(shown) if (shown := server.client_certificate) else None,
            authorities=authorities_name(server.client_validation.authorities) if server.client_validation else "",
            locations=tuple(self.location(location, rules) for location in server.locations),
            rules=tuple(rules.values()),
            hidden=() if hidden == BASE else hidden,
            shared=tuple(SharedView(location, tuple(shared[location])) for location in sorted(shared)),
        )

    def copies(self, server: Server) -> CopiesView:
        shown = server.client_certificate
        reads_models = any(self.rewrites(rule) for rule in server.rules)
        bearing = _Bearing(is_named=True, is_read=reads_models, hidden=BASE)
        upstream = copies_upstream(shown)
        return CopiesView(
            socket=copies_socket(shown),
            upstream=upstream,
            variable=f"$copied_{digest(upstream)}",
            client_certificate=certificate_files(shown) if shown else None,
            reads_models=reads_models,
            rules=tuple(self.rule(rule, server, bearing) for rule in server.rules),
        )

    def location(self, location: Location, rules: Mapping[str, "RuleView"]) -> LocationView:
        last = rules[location.cases[-1].rule.id] if location.is_complete else None
        place = self.places[id(location)]
        pools = _pools_of(case.rule for case in location.cases) if place and place.asks_for_model else []
        return LocationView(
            path=location.path,
            is_exact=location.is_exact,
            rule=last if self.is_direct(location) else None,
            place=place.id if place else "",
            chooser=self.variables[place.id] if place else "$infergate_default",
            reads_model=self.reads_model(location),
            default=last.target if last else _NO_RULE,
            pools=",".join(pools),
            names_models=not self.refusing.isdisjoint(pools),
        )

    def is_direct(self, location: Location) -> bool:
        """Whether its one rule needs no look at the request first."""
        return self.places[id(location)] is None and not self.reads_model(location)

    def reads_model(self, location: Location) -> bool:
        """Whether a rule is chosen by the model, or leads to a pool that gives models other names."""
        place = self.places[id(location)]
        if place is not None and place.asks_for_model:
            return True
        return bool(self.rewriting) and any(self.rewrites(case.rule) for case in location.cases)

    def rewrites(self, rule: Rule) -> bool:
        targets = (backend.target for backend in rule.backends if backend.weight > 0)
        return any(isinstance(target, ToPool) and target.pool in self.rewriting for target in targets) and not any(
            isinstance(item, Redirect) for item in rule.filters
        )

    def _known_rule(self, rule: Rule, server: Server, bearing: _Bearing) -> RuleView:
        key = (rule.id, server.port, server.is_tls, server.client_certificate, bearing)
        return self.memory.view(key, rule, partial(self.rule, rule, server, bearing))

    def rule(self, rule: Rule, server: Server, bearing: _Bearing) -> RuleView:
        location = f"@{rule.id}"
        redirect = _redirect_of(rule.filters)
        drawn = [index for index, backend in enumerate(rule.backends) if backend.weight > 0]
        stays = [index for index, backend in enumerate(rule.backends) if rule.session and is_kept(backend)]
        used = sorted({*drawn, *stays}) if drawn else []
        is_divided = len(used) > 1 and redirect is None
        places = {index: f"{location}/{index}" if is_divided else location for index in used}
        backends = tuple(self.backend(rule, index, place, server, bearing) for index, place in places.items())
        is_split = is_divided and len(drawn) > 1
        split = _split_view(rule, [places[index] for index in drawn]) if is_split else None
        session = None
        if is_divided and rule.session is not None:
            default = split.variable if split else places[drawn[0]]
            session = session_view(rule, places=places, default=default, is_secure=server.is_tls)
        return RuleView(
            rule=rule,
            location=location,
            # A session is looked for in the location of the rule, which says by what.
            is_named=bearing.is_named and (session is not None or split is None),
            target=split.variable if split and not session else location,
            redirect=redirect,
            redirect_port=_redirect_port(redirect, server) if redirect else None,
            redirect_headers=answer_headers(rule.filters).added if redirect else (),
            cors=cors_of(rule.filters) if redirect else None,
            backends=backends,
            split=split,
            session=session,
            priorities=_priorities(rule.priority),
        )

    def backend(self, rule: Rule, index: int, location: str, server: Server, bearing: _Bearing) -> BackendView:
        backend = rule.backends[index]
        filters = (*rule.filters, *backend.filters)
        rewrites = _rewrites(filters)
        target = backend.target
        speaks_http2 = (isinstance(target, ToUpstream) and target.upstream in self.http2) or (
            isinstance(target, ToPool) and target.pool in self.http2_pools
        )
        base = request_headers(is_call=rule.takes_calls)
        headers = request_headers(filters, upgrades=not speaks_http2, is_call=rule.takes_calls)
        answer = with_session(answer_headers(filters), rule)
        tls = self.tls_of(target)
        endpoint_variable = self.endpoint_variable_of(target, server)
        is_rewriting = isinstance(target, ToPool) and target.pool in self.rewriting
        pools = _other_pools(rule) if isinstance(target, ToPool) else ""
        is_plain = headers == request_headers() and answer == answer_headers()
        is_plain = is_plain and not (rewrites or rule.timeouts or endpoint_variable)
        # A reference that does not resolve is 500 still; a Service without endpoints is not asked for any.
        is_broken = isinstance(target, ToStatus) and target.status == 500
        redirect = None if is_broken else _redirect_of(backend.filters)
        return BackendView(
            location=location,
            serve_location=_SERVE if is_plain else f"{location}/serve",
            has_own_serve_location=not is_plain and redirect is None,
            target=target,
            upstream=self.upstream_of(target, server),
            speaks_http2=speaks_http2,
            module=_module(rule),
            fails_open=isinstance(target, ToPool) and target.pool in self.fail_open,
            headers=None if headers == base else headers,
            relay_headers=self.relay_headers(target, filters, server),
            # Servers have lists for `proxy` alone.
            answer=beside(answer, BASE if rule.takes_calls else bearing.hidden),
            hostname=next((item.hostname for item in rewrites if item.hostname), None),
            path=next((item.path for item in rewrites if item.path), None),
            timeouts=rule.timeouts,
            mirrors=tuple(
                self.mirror(rule, mirror, server, filters=filters, location=f"mirror:{location[1:]}/{number}")
                for number, mirror in enumerate(item for item in filters if isinstance(item, Mirror))
            ),
            cors=cors_of(filters),
            retry=_retry_view(rule, rule.retry, location) if rule.retry and isinstance(target, ToUpstream) else None,
            tls=tls,
            endpoint_variable=endpoint_variable,
            rewritten_location=f"{location}/rewritten" if is_rewriting and redirect is None else "",
            rewritten_headers=request_headers(filters, encodings=False) if is_rewriting else (),
            pools=pools,
            tells_more=bearing.is_read or bool(pools or rule.session) or rule.priority != NO_PRIORITY,
            redirect=redirect,
            redirect_port=_redirect_port(redirect, server) if redirect else None,
            redirect_headers=answer_headers(filters).added if redirect else (),
            session=backend_settings(rule, index, is_secure=server.is_tls),
        )

    def upstream_of(self, target: Target, server: Server) -> str:
        """Name of the nginx upstream; empty without one."""
        match target:
            case ToUpstream(upstream=upstream):
                shown = server.client_certificate if upstream in self.dialed else None
                return _service_upstream(upstream, shown=shown)
            case ToPool(pool=pool):
                return _pool_upstream(pool, shown=server.client_certificate if pool in self.dialed_pools else None)
            case ToStatus():
                return ""

    def endpoint_variable_of(self, target: Target, server: Server) -> str:
        if not isinstance(target, ToPool) or target.tls is None:
            return ""
        shown = server.client_certificate if target.pool in self.dialed_pools else None
        return _endpoint_variable(target.pool, shown=shown)

    def relay_headers(self, target: Target, filters: tuple[Filter, ...], server: Server) -> tuple[Header, ...] | None:
        """None for what does not go to the relay."""
        if not isinstance(target, ToPool) or target.pool not in self.relayed:
            return None
        tls = self.dialed_pools.get(target.pool)
        http2 = target.pool in self.http2_pools
        stem = stem_of(tls, speaks_http2=http2, shown=server.client_certificate) if tls else ""
        headers = (*request_headers(filters, to_relay=True), Header(DIALED_HEADER, expression(stem)))
        return tuple(sorted(headers, key=lambda header: header.name))

    def tls_of(self, target: Target) -> TlsView | None:
        """How nginx itself speaks to a target; None in plain text, or by way of the dialer."""
        match target:
            case ToUpstream(upstream=upstream):
                return self.tls.get(upstream)
            case ToPool(pool=pool, tls=tls):
                return tls_view(tls) if tls and pool not in self.dialed_pools else None
            case ToStatus():
                return None

    def mirror(
        self, rule: Rule, mirror: Mirror, server: Server, *, filters: tuple[Filter, ...], location: str
    ) -> MirrorView:
        rewrites = _rewrites(filters)
        return MirrorView(
            location=location,
            upstream=(
                copies_upstream(server.client_certificate)
                if mirror.pool
                else self.upstream_of(ToUpstream(mirror.upstream), server)
            ),
            speaks_http2=mirror.upstream in self.http2,
            module=_module(rule),
            sample=_sample(rule, mirror, location=location),
            headers=request_headers(
                filters, upgrades=False, is_call=rule.takes_calls, copied_to=inside(mirror.pool) if mirror.pool else ""
            ),
            answer=None,
            hostname=next((item.hostname for item in rewrites if item.hostname), None),
            path=next((item.path for item in rewrites if item.path), None),
            tls=self.tls.get(mirror.upstream),
        )


def _retry_view(rule: Rule, retry: Retry, location: str) -> RetryView:
    return RetryView(
        locations=tuple(f"{location}/retry{number + 1}" for number in range(retry.attempts)),
        caught=tuple(sorted({502, 504, *retry.codes})),
        has_codes=bool(retry.codes),
        backoff_ms=round(retry.backoff * 1000),
        waits=bool(retry.backoff or (rule.timeouts and rule.timeouts.request)),
    )


def _split_view(rule: Rule, locations: Sequence[str]) -> SplitView:
    split, fine = splits([backend.weight for backend in rule.backends if backend.weight > 0])
    return SplitView(
        rule=rule,
        what=f"weights {' / '.join(str(backend.weight) for backend in rule.backends)}",
        variable=f"$backend_{digest(rule.id)}",
        # Who is early in one rollout need not be early in all.
        salt=inside(rule.id) if rule.sticky_header else "",
        values=tuple(locations),
        split=split,
        fine_split=fine,
        sticky=_sticky_view(rule.sticky_header) if rule.sticky_header else None,
    )


def _sticky_view(header: str) -> StickyView:
    variable = header_variable(header)
    return StickyView(f"$sticky_{variable[1:].removeprefix('http_')}", variable)


def _sample(rule: Rule, mirror: Mirror, *, location: str) -> SplitView | None:
    rest = mirror.denominator - mirror.numerator
    if not rest:
        return None
    split, fine = splits([mirror.numerator, rest])
    return SplitView(
        rule=rule,
        what=f"mirrors {mirror.numerator} of {mirror.denominator} to {mirror.upstream or mirror.pool}",
        variable=f"$mirror_{digest(location)}",
        salt=location,
        values=("1", "0"),
        split=split,
        fine_split=fine,
    )


def _splits_of(rule: RuleView) -> Iterable[SplitView]:
    if rule.split:
        yield rule.split
    for backend in rule.backends:
        yield from (mirror.sample for mirror in backend.mirrors if mirror.sample)


def _cors_views(rules: Iterable[RuleView]) -> tuple[CorsView, ...]:
    found = {view for rule in rules for view in (rule.cors, *(backend.cors for backend in rule.backends)) if view}
    return tuple(sorted(found, key=lambda view: (view.origin, view.preflight)))


def _flag_views(maps: Iterable[RuleMap]) -> tuple[FlagView, ...]:
    users: dict[Flag, set[str]] = {}
    for found in maps:
        for choice in found.choices:
            for flag in choice.flags:
                users.setdefault(flag, set()).add(str(choice.rule.route))
    return tuple(FlagView(flag, tuple(sorted(users[flag]))) for flag in sorted(users))


def _pools_of(rules: Iterable[Rule]) -> list[str]:
    """Names of the pools that get a share, sorted."""
    backends = [backend for rule in rules for backend in rule.backends if backend.weight > 0]
    return sorted({backend.target.pool for backend in backends if isinstance(backend.target, ToPool)})


def _other_pools(rule: Rule) -> str:
    pools = _pools_of([rule])
    return ",".join(pools) if len(pools) > 1 else ""


def _priorities(priority: Priority) -> tuple[tuple[str, int], ...]:
    named = (
        ("infergate_priority", priority.fixed),
        ("infergate_priority_cap", priority.cap),
        ("infergate_priority_default", priority.default),
    )
    return tuple((name, number) for name, number in named if number is not None)


def _redirect_of(filters: Iterable[Filter]) -> Redirect | None:
    return next((item for item in filters if isinstance(item, Redirect)), None)


def _redirect_port(redirect: Redirect, server: Server) -> int | None:
    """The port to write into a Location.

    Source: Gateway API, HTTPRequestRedirectFilter.port.
    """
    scheme = redirect.scheme or ("https" if server.is_tls else "http")
    implied = {"http": 80, "https": 443}[scheme]
    port = redirect.port or (implied if redirect.scheme else server.port)
    return None if port == implied else port


def _module(rule: Rule) -> str:
    return "grpc" if rule.takes_calls else "proxy"


def service_upstream(upstream: str) -> str:
    """Name in nginx of the upstream of a Service."""
    return f"service_{name(upstream)}"


def _service_upstream(upstream: str, *, shown: Certificate | None) -> str:
    """shown: what the dialer shows, for an upstream behind it."""
    return f"{service_upstream(upstream)}_{name(shown.source.path)}" if shown else service_upstream(upstream)


def _upstream_views(config: GatewayConfig) -> Iterable[UpstreamView]:
    rules = [rule for server in config.servers for rule in server.rules]
    timed = _upstreams_of(rule for rule in rules if rule.timeouts)
    kept = _upstreams_of(rule for rule in rules if rule.session)
    for upstream in config.upstreams:
        for upstream_name, servers in _servers_of(upstream, config):
            view = UpstreamView(
                name=upstream_name,
                source=upstream.source,
                servers=servers,
                is_secured=upstream.tls is not None,
                routes=(),
                is_timed=upstream.name in timed,
            )
            yield view
            if upstream.name in kept:
                yield replace(view, name=f"{upstream_name}{_OF_SESSIONS}", routes=routes_of(upstream.name, servers))


def _upstreams_of(rules: Iterable[Rule]) -> set[str]:
    targets = (backend.target for rule in rules for backend in rule.backends)
    return {target.upstream for target in targets if isinstance(target, ToUpstream)}


def _servers_of(upstream: Upstream, config: GatewayConfig) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Names in nginx of an upstream with its addresses, or the sockets behind which the dialer is."""
    if not is_dialed(upstream.tls):
        yield _service_upstream(upstream.name, shown=None), upstream.endpoints
        return
    for shown in shown_to(config):
        sockets = sockets_of(upstream, shown=shown)
        yield _service_upstream(upstream.name, shown=shown), tuple(f"unix:{socket}" for socket in sockets)


def _endpoint_variable(pool: str, *, shown: Certificate | None) -> str:
    return f"$endpoint_{digest(f'{pool}:{shown.source.path}' if shown else pool)}"


def _pool_upstream(pool: str, *, shown: Certificate | None) -> str:
    """shown: what the dialer shows, for a pool behind it."""
    return f"pool_{name(pool)}_{name(shown.source.path)}" if shown else f"pool_{name(pool)}"


def socket_of_http(port: int) -> str:
    """Where the servers of a port listen whose connections come by way of a choice among all that is on it."""
    return f"unix:run/https_{port}.sock"


def _pool_view(pool: Pool, *, tls: BackendTls | None, shown: Certificate | None, is_secured: bool) -> PoolView:
    """tls: of a pool behind the dialer, which shows a certificate or none."""
    upstream = _pool_upstream(pool.name, shown=shown)
    # The same address may serve another pool by another policy.
    own = upstream.removeprefix("pool") if is_secured else ""
    stem = stem_of(tls, speaks_http2=pool.speaks_http2, shown=shown) if tls else ""
    addresses = sorted({endpoint.address for endpoint in pool.endpoints})
    servers = [f"unix:{dialed_socket(stem, address)}" if stem else address for address in addresses]
    return PoolView(
        pool=pool,
        upstream=upstream,
        endpoints=tuple(
            EndpointView(address, f"endpoint_{name(address)}{own}", server)
            for address, server in zip(addresses, servers, strict=True)
        ),
        variable=_endpoint_variable(pool.name, shown=shown) if is_secured else "",
        # The colon ends the path of a socket.
        default=expression(f"unix:{stem}_", "${infergate_socket_name}", ".sock:") if stem else "$infergate_endpoint",
    )


def _rewrites(filters: Sequence[Filter]) -> list[Rewrite]:
    """The last one first: what a backend changes holds over what its rule changes."""
    return [item for item in reversed(filters) if isinstance(item, Rewrite)]


def _all_filters(rule: Rule) -> Iterable[Filter]:
    yield from rule.filters
    for backend in rule.backends:
        yield from backend.filters
