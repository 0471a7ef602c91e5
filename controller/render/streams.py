"""What the templates of connections and datagrams loop over.

There are two ways on for a connection. `proxy_pass` makes a second one, to an upstream. `pass` hands it to another
server of the same worker, so that addresses of clients stay as they are where a server of requests takes it; that
server is named by a socket, which nobody else connects to. A worker that a reload retires knows no sockets any more: a
connection whose first message it still waits for can only be proxied. So `pass` is used at once, before anything is
read, and on ports where servers of several kinds wait for what the first message says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ir.streams import Mode, StreamBackend, StreamRule, StreamServer, Transport
from controller.ir.types import GatewayConfig, Server, Upstream
from controller.render.certificates import TlsView, certificate_files, tls_view
from controller.render.maps import digest
from controller.render.names import service_upstream, socket_of_http
from controller.render.quoting import expression
from controller.render.weights import Split, splits

CLOSED: Final = "unix:run/closed.sock"
"""Connections that are handed to this one are closed."""
REFUSED: Final = "infergate_refused"
"""Upstream of connections that are closed: what was sent is read before, so that this is no failure of the upstream."""
DROPPED: Final = "infergate_dropped"
"""Upstream of datagrams that are dropped."""
_SEED: Final = "${connection}:${msec}:${remote_addr}:${remote_port}"
"""Different for each connection."""


@dataclass(frozen=True)
class StreamSplitView:
    """Divides connections by chance."""

    rule: StreamRule
    what: str
    """For a reader."""
    variable: str
    """Holds one of the values."""
    values: tuple[str, ...]
    """By the index of the share, as written into the file."""
    split: Split
    fine_split: Split | None

    @property
    def source(self) -> str:
        return expression(_SEED)

    @property
    def fine_source(self) -> str:
        return expression(_SEED, "fine")


@dataclass(frozen=True)
class ExitView:
    """A server of its own for connections to one upstream."""

    rule: StreamRule
    socket: str
    upstream: str
    tls: TlsView | None
    client_certificate: tuple[str, str] | None
    """(chain, key), relative to nginx.conf."""


@dataclass(frozen=True)
class StreamServerView:
    """A server of a port."""

    server: StreamServer
    hostnames: tuple[str, ...]
    """As `server_name` takes them; empty where no name is looked at."""
    is_default: bool
    """Whether it has the names that no other server has."""
    certificate_files: tuple[tuple[str, str], ...]
    """(chain, key), relative to nginx.conf."""
    upstream: str
    """Upstream, or variable that holds one; empty: connections are handed over, or closed."""
    tls: TlsView | None
    """Of the upstream."""
    client_certificate: tuple[str, str] | None
    handed_to: str
    """Socket, or variable that holds one; empty: connections are closed."""

    @property
    def route(self) -> str:
        """Whose connections all of a port are; empty where a name decides."""
        return "" if self.hostnames or self.server.rule is None else str(self.server.rule.route)

    @property
    def listen(self) -> str:
        """What follows the address in `listen`."""
        if self.server.transport is Transport.UDP:
            # Without it, datagrams of one client go to any worker, each of which takes it for a client of its own.
            return " udp reuseport"
        return " ssl" * bool(self.hostnames) + " default_server" * self.is_default

    @property
    def opens(self) -> bool:
        """Whether its `listen` has the options of the port, which only one of several may have."""
        return self.server.transport is Transport.TCP and (self.is_default or not self.hostnames)

    @property
    def rejects(self) -> bool:
        """Whether the handshake of TLS is refused, because there is no route."""
        return bool(self.hostnames) and not self.certificate_files


@dataclass(frozen=True)
class StreamPortView:
    port: int
    transport: Transport
    choices: tuple[tuple[str, str, str], ...]
    """(hostname, upstream, socket or variable, whose it is) that the name in the first message of TLS chooses among;
    `*` is any other. Empty where all TLS of the port ends in `servers`, and where nobody looks for it."""
    hands_over: bool
    """Whether the choices are sockets."""
    socket: str
    """Where `servers` listen; empty: on the port itself."""
    servers: tuple[StreamServerView, ...]
    is_tls: bool
    """Whether TLS ends in `servers`."""

    @property
    def is_datagram(self) -> bool:
        return self.transport is Transport.UDP

    @property
    def file(self) -> str:
        return f"{self.transport.lower()}_{self.port}.conf"

    @property
    def variable(self) -> str:
        return f"$choice_{self.port}"

    @property
    def has_default(self) -> bool:
        return any(view.is_default for view in self.servers)


@dataclass(frozen=True)
class StreamsView:
    ports: tuple[StreamPortView, ...]
    upstreams: tuple[tuple[str, Upstream], ...]
    """(name in nginx, upstream)."""
    splits: tuple[StreamSplitView, ...]
    exits: tuple[ExitView, ...]
    closes: bool
    """Whether some connections are closed."""
    refuses: bool
    """As above, by way of an upstream."""
    drops: bool
    """Whether some datagrams are dropped."""


def streams_view(config: GatewayConfig) -> StreamsView:
    """Everything the templates need of the connections of a configuration."""
    openings = sorted({(server.port, server.transport) for server in config.streams})
    ports = tuple(
        _port_view(
            [server for server in config.streams if (server.port, server.transport) == opening],
            config=config,
        )
        for opening in openings
    )
    rules = {server.rule.id: server.rule for server in config.streams if server.rule is not None}
    ways = [_Way(rules[name], handed) for name in sorted(rules) for handed in (False, True)]
    chosen = {value for port in ports for _, value, _ in port.choices}
    chosen |= {value for port in ports for view in port.servers for value in (view.handed_to, view.upstream)}
    split_views = [way.split for way in ways if way.is_split and way.variable in chosen]
    used = chosen | {value for view in split_views for value in view.values}
    exits = {exit.socket: exit for rule in rules.values() for exit in _exits(rule) if exit.socket in used}
    return StreamsView(
        ports=ports,
        upstreams=tuple((service_upstream(item.name), item) for item in config.stream_upstreams),
        splits=tuple(split_views),
        exits=tuple(exits[socket] for socket in sorted(exits)),
        closes=CLOSED in used,
        refuses=REFUSED in used,
        drops=DROPPED in used,
    )


def _port_view(servers: Sequence[StreamServer], *, config: GatewayConfig) -> StreamPortView:
    port, transport = servers[0].port, servers[0].transport
    is_tcp = transport is Transport.TCP
    read = [item for item in config.servers if is_tcp and item.port == port and not item.is_elsewhere]
    ending = [item for item in servers if item.mode is Mode.TERMINATE]
    passed = [item for item in servers if item.mode is Mode.PASSTHROUGH]
    socket = f"unix:run/tls_{port}.sock" if ending and (read or passed) else ""
    hands_over = bool(read or socket)
    choices: list[tuple[str, str, str]] = []
    if read or passed:
        # Those that end TLS tell the client that they do not know the name.
        unknown = socket_of_http(port) if read else socket or REFUSED
        choices.append(("*", unknown, "Names that no listener has"))
        choices += [(host, socket_of_http(port), _whose(item)) for item in read for host in item.hostnames]
        choices += [(host, socket, _whose(item)) for item in ending for host in item.hostnames]
        choices += [
            (host, _place(item.rule, handed=hands_over), _whose(item)) for item in passed for host in item.hostnames
        ]
    return StreamPortView(
        port=port,
        transport=transport,
        choices=tuple(sorted({choice[0]: choice for choice in choices}.values())),
        hands_over=hands_over,
        socket=socket,
        servers=tuple(_server_view(item) for item in servers if item.mode is not Mode.PASSTHROUGH),
        is_tls=bool(ending),
    )


def _whose(server: Server | StreamServer) -> str:
    listener = f"{server.owner}, listener {server.listener}"
    rule = server.rule if isinstance(server, StreamServer) else None
    return f"{rule.route}, of {listener}" if rule else listener


def _server_view(server: StreamServer) -> StreamServerView:
    is_named = server.mode is Mode.TERMINATE
    upstream, handed_to, tls, shown = "", "", None, None
    if server.rule is not None:
        way = _Way(server.rule, handed=False)
        if not way.is_split:
            upstream = way.only
            tls = next((item.tls for item in way.drawn), None)
            shown = server.rule.client_certificate if tls else None
        elif server.mode is Mode.OPAQUE and server.transport is Transport.TCP:
            handed_to = _Way(server.rule, handed=True).variable
        else:
            upstream = way.variable
    return StreamServerView(
        server=server,
        hostnames=tuple("_" if host == "*" else host for host in server.hostnames) if is_named else (),
        is_default=is_named and "*" in server.hostnames,
        certificate_files=tuple(certificate_files(certificate) for certificate in server.certificates),
        upstream=upstream,
        tls=tls_view(tls) if tls else None,
        client_certificate=certificate_files(shown) if shown else None,
        handed_to=handed_to,
    )


@dataclass(frozen=True)
class _Way:
    """How connections of a rule go on: they are handed to sockets, or proxied to upstreams."""

    rule: StreamRule
    handed: bool

    @property
    def drawn(self) -> list[StreamBackend]:
        """Backends with a share."""
        return [item for item in self.rule.backends if item.weight > 0]

    @property
    def is_split(self) -> bool:
        return len({item.upstream for item in self.drawn}) > 1

    @property
    def only(self) -> str:
        """The one upstream that has all connections; empty when there are several, or none."""
        found = {item.upstream for item in self.drawn}
        name = next(iter(found)) if len(found) == 1 else ""
        return service_upstream(name) if name else ""

    @property
    def variable(self) -> str:
        return f"${'place' if self.handed else 'backend'}_{digest(self.rule.id)}"

    @property
    def split(self) -> StreamSplitView:
        drawn = self.drawn
        split, fine = splits([item.weight for item in drawn])
        return StreamSplitView(
            rule=self.rule,
            what=f"weights {' / '.join(str(backend.weight) for backend in self.rule.backends)}",
            variable=self.variable,
            values=tuple(self.place(item) for item in drawn),
            split=split,
            fine_split=fine,
        )

    def place(self, backend: StreamBackend) -> str:
        """Where connections to a backend go."""
        if not backend.upstream:
            return CLOSED if self.handed else DROPPED if self.rule.route.kind == "UDPRoute" else REFUSED
        name = service_upstream(backend.upstream)
        # What is said of TLS holds for a whole server, so that each backend needs one.
        return _socket(self.rule, name) if self.handed or self.rule.is_secured else name


def _place(rule: StreamRule | None, *, handed: bool) -> str:
    """Where connections of a rule go: socket, upstream, or a variable that holds one."""
    if rule is None:
        return CLOSED if handed else REFUSED
    way = _Way(rule, handed)
    if way.is_split:
        return way.variable
    return way.place(way.drawn[0]) if way.drawn else CLOSED if handed else REFUSED


def _exits(rule: StreamRule) -> Iterable[ExitView]:
    for backend in _Way(rule, handed=True).drawn:
        if backend.upstream:
            name = service_upstream(backend.upstream)
            shown = rule.client_certificate if backend.tls else None
            yield ExitView(
                rule=rule,
                socket=_socket(rule, name),
                upstream=name,
                tls=tls_view(backend.tls) if backend.tls else None,
                client_certificate=certificate_files(shown) if shown else None,
            )


def _socket(rule: StreamRule, upstream: str) -> str:
    """Names of Kubernetes are longer than the path of a socket may be."""
    return f"unix:run/to_{digest(f'{rule.id} {upstream}')}.sock"
