"""What the templates of connections and datagrams loop over.

`pass` hands a connection that was accepted to another server of the same worker: no second connection is made, so
addresses of clients stay as they are. It takes a socket, so each place that connections can be handed to listens on one
of its own, which nobody else connects to. Datagrams cannot be handed over: they go to upstreams.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ir.streams import Mode, StreamRule, StreamServer, Transport
from controller.ir.types import GatewayConfig, Server, Upstream
from controller.render.maps import digest
from controller.render.quoting import expression
from controller.render.views import TlsView, certificate_files, service_upstream, socket_of_http, tls_view
from controller.render.weights import Split, splits

CLOSED: Final = "unix:run/closed.sock"
"""Connections that come here are closed."""
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
    """A server that connections are handed to, and that passes them on to one upstream."""

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
    """Where connections go; empty: they are handed over, or closed."""
    handed_to: str
    """Socket, or variable that holds one; empty: they are closed."""

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
    """(hostname, socket or variable, whose it is) that the name in the first message of TLS chooses among, `*` for any
    other. Empty where all TLS of the port ends in `servers`, and where nobody looks for it."""
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
    handed, sent = _by_way(config.streams)
    split_views = [_split_view(rule, Transport.TCP) for rule in handed if _is_split(rule)]
    split_views += [_split_view(rule, Transport.UDP) for rule in sent if _is_split(rule)]
    values = {value for view in split_views for value in view.values}
    used = {value for port in ports for _, value, _ in port.choices} | values
    used |= {view.handed_to for port in ports for view in port.servers}
    return StreamsView(
        ports=ports,
        upstreams=tuple((service_upstream(item.name), item) for item in config.stream_upstreams),
        splits=tuple(split_views),
        exits=tuple(exit for rule in handed for exit in _exits(rule) if exit.socket in used),
        closes=CLOSED in used,
        drops=DROPPED in used,
    )


def _by_way(servers: Iterable[StreamServer]) -> tuple[list[StreamRule], list[StreamRule]]:
    """Rules whose connections may be handed over, and those of datagrams, each sorted by id."""
    found: dict[bool, dict[str, StreamRule]] = {False: {}, True: {}}
    for server in servers:
        if server.rule is not None:
            found[server.transport is Transport.UDP][server.rule.id] = server.rule
    handed, sent = ([rules[key] for key in sorted(rules)] for rules in found.values())
    return handed, sent


def _port_view(servers: Sequence[StreamServer], *, config: GatewayConfig) -> StreamPortView:
    port, transport = servers[0].port, servers[0].transport
    is_tcp = transport is Transport.TCP
    read = [item for item in config.servers if is_tcp and item.port == port and not item.is_elsewhere]
    ending = [item for item in servers if item.mode is Mode.TERMINATE]
    passed = [item for item in servers if item.mode is Mode.PASSTHROUGH]
    socket = f"unix:run/tls_{port}.sock" if ending and (read or passed) else ""
    choices: list[tuple[str, str, str]] = []
    if read or passed:
        # Those that end TLS tell the client that they do not know the name.
        choices.append(("*", socket_of_http(port) if read else socket or CLOSED, "Names that no listener has"))
        choices += [(host, socket_of_http(port), _whose(item)) for item in read for host in item.hostnames]
        choices += [(host, socket, _whose(item)) for item in ending for host in item.hostnames]
        choices += [(host, _handed_to(item.rule), _whose(item)) for item in passed for host in item.hostnames]
    return StreamPortView(
        port=port,
        transport=transport,
        choices=tuple(sorted({choice[0]: choice for choice in choices}.values())),
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
    is_datagram = server.transport is Transport.UDP
    handed_to = "" if is_datagram else _handed_to(server.rule)
    upstream = ""
    if server.rule is not None and not is_named:
        # One that is found by its name hands connections over all the same: its `set` comes before the name is known.
        upstream = _variable(server.rule) if is_datagram and _is_split(server.rule) else _only_upstream(server.rule)
    return StreamServerView(
        server=server,
        hostnames=tuple("_" if host == "*" else host for host in server.hostnames) if is_named else (),
        is_default=is_named and "*" in server.hostnames,
        certificate_files=tuple(certificate_files(certificate) for certificate in server.certificates),
        upstream=upstream,
        handed_to="" if upstream or handed_to == CLOSED else handed_to,
    )


def _drawn(rule: StreamRule) -> list[tuple[str, int]]:
    """(name in nginx of an upstream or empty, weight) of backends with a share."""
    return [
        (service_upstream(item.upstream) if item.upstream else "", item.weight)
        for item in rule.backends
        if item.weight > 0
    ]


def _is_split(rule: StreamRule) -> bool:
    return len({upstream for upstream, _ in _drawn(rule)}) > 1


def _only_upstream(rule: StreamRule) -> str:
    """The one upstream that has all connections; empty when there are several, or none."""
    found = {upstream for upstream, _ in _drawn(rule)}
    return next(iter(found)) if len(found) == 1 else ""


def _handed_to(rule: StreamRule | None) -> str:
    """Socket, or variable that holds one, of a rule whose connections are handed over."""
    if rule is None:
        return CLOSED
    if _is_split(rule):
        return _variable(rule)
    only = _only_upstream(rule)
    return _socket(rule, only) if only else CLOSED


def _exits(rule: StreamRule) -> Iterable[ExitView]:
    drawn = {service_upstream(item.upstream): item for item in rule.backends if item.upstream and item.weight}
    for upstream, backend in sorted(drawn.items()):
        shown = rule.client_certificate if backend.tls else None
        yield ExitView(
            rule=rule,
            socket=_socket(rule, upstream),
            upstream=upstream,
            tls=tls_view(backend.tls) if backend.tls else None,
            client_certificate=certificate_files(shown) if shown else None,
        )


def _split_view(rule: StreamRule, transport: Transport) -> StreamSplitView:
    drawn = _drawn(rule)
    split, fine = splits([weight for _, weight in drawn])
    if transport is Transport.UDP:
        values = tuple(upstream or DROPPED for upstream, _ in drawn)
    else:
        values = tuple(_socket(rule, upstream) if upstream else CLOSED for upstream, _ in drawn)
    return StreamSplitView(
        rule=rule,
        what=f"weights {' / '.join(str(backend.weight) for backend in rule.backends)}",
        variable=_variable(rule),
        values=values,
        split=split,
        fine_split=fine,
    )


def _variable(rule: StreamRule) -> str:
    return f"$backend_{digest(rule.id)}"


def _socket(rule: StreamRule, upstream: str) -> str:
    """Names of Kubernetes are longer than the path of a socket may be."""
    return f"unix:run/to_{digest(f'{rule.id} {upstream}')}.sock"
