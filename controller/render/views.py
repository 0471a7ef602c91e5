"""What the templates loop over: the configuration with every name, map and header list worked out."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from controller.bundle import FailureMode, Pool
from controller.ir.filters import Filter, PathChange, PrefixPath, Redirect, Rewrite
from controller.ir.types import Backend, GatewayConfig, Location, Rule, Server, ToPool, ToStatus, ToUpstream, Upstream
from controller.render.headers import (
    AnswerHeaders,
    Header,
    answer_headers,
    appended_headers,
    joined_variable,
    request_headers,
)
from controller.render.maps import NOT_FOUND, Flag, RuleMap, digest, header_variable, rule_map
from controller.render.quoting import expression, name
from controller.render.weights import Split, splits


@dataclass(frozen=True)
class LocationView:
    path: str
    is_exact: bool
    jump: str
    """The named location that serves it, or the variable that holds it."""


@dataclass(frozen=True)
class BackendView:
    """One named location that sends requests to one target."""

    location: str
    serve_location: str
    """Where a picked request goes; used with a pool only."""
    target: ToUpstream | ToPool | ToStatus
    upstream: str
    """Name of the nginx upstream; empty without one."""
    fails_open: bool
    headers: tuple[Header, ...] | None
    """None: nothing differs from what every backend receives."""
    answer: AnswerHeaders | None
    hostname: str | None
    path: PathChange | None


@dataclass(frozen=True)
class RuleView:
    rule: Rule
    location: str
    redirect: Redirect | None
    redirect_port: int | None
    """Written into the Location of the redirect; None where the scheme implies it."""
    backends: tuple[BackendView, ...]
    """Those with a share. One alone has the location of the rule itself."""
    split: Split | None
    fine_split: Split | None
    split_variable: str
    """Holds the location of the backend that was drawn."""
    weights: str
    """For a reader."""


@dataclass(frozen=True)
class ServerView:
    server: Server
    hostnames: tuple[str, ...]
    """As `server_name` takes them."""
    is_default: bool
    certificate_files: tuple[tuple[str, str], ...]
    """(chain, key), relative to nginx.conf."""
    locations: tuple[LocationView, ...]
    has_root: bool
    rules: tuple[RuleView, ...]


@dataclass(frozen=True)
class PortView:
    port: int
    is_tls: bool
    servers: tuple[ServerView, ...]
    has_default: bool


@dataclass(frozen=True)
class EndpointView:
    address: str
    upstream: str


@dataclass(frozen=True)
class PoolView:
    pool: Pool
    upstream: str
    endpoints: tuple[EndpointView, ...]


@dataclass(frozen=True)
class FlagView:
    flag: Flag
    users: str
    """The routes that ask for it, for a reader and to trace a refusal."""


@dataclass(frozen=True)
class ConfigView:
    ports: tuple[PortView, ...]
    upstreams: tuple[tuple[str, Upstream], ...]
    """(name in nginx, upstream)."""
    pools: tuple[PoolView, ...]
    endpoints: tuple[EndpointView, ...]
    """Of all pools, without repetition."""
    rule_maps: tuple[RuleMap, ...]
    flags: tuple[FlagView, ...]
    joined: tuple[tuple[str, str, str], ...]
    """(variable, the header's variable, quoted value where the client sent the header)."""
    splits: tuple[RuleView, ...]
    uses_paths: bool
    """Whether some rule replaces the prefix of a path, which takes njs."""


def config_view(config: GatewayConfig) -> ConfigView:
    """Everything the templates need of a configuration."""
    fail_open = frozenset(pool.name for pool in config.pools if pool.failure_mode is FailureMode.FAIL_OPEN)
    ports = tuple(
        _port_view(port, [server for server in config.servers if server.port == port], fail_open)
        for port in sorted({server.port for server in config.servers})
    )
    rules = {view.rule.id: view for port in ports for server in port.servers for view in server.rules}
    maps = {found.variable: found for server in config.servers for found in _rule_maps(server.locations)}
    filters = [item for view in rules.values() for item in _all_filters(view.rule)]
    pools = tuple(_pool_view(pool) for pool in config.pools)
    return ConfigView(
        ports=ports,
        upstreams=tuple((_service_upstream(upstream.name), upstream) for upstream in config.upstreams),
        pools=pools,
        endpoints=tuple({view.address: view for pool in pools for view in pool.endpoints}.values()),
        rule_maps=tuple(maps[variable] for variable in sorted(maps)),
        flags=_flag_views(maps.values()),
        joined=tuple(
            (joined_variable(header), header_variable(header), expression(header_variable(header), ","))
            for header in appended_headers(filters)
        ),
        splits=tuple(rules[name] for name in sorted(rules) if rules[name].split),
        uses_paths=any(isinstance(_path_change(item), PrefixPath) for item in filters),
    )


def certificate_name(server: Server, index: int) -> str:
    """File name, without ending, of a server's certificate, relative to nginx.conf."""
    source = server.certificates[index].source
    return f"tls/{name(source.path)}"


def _port_view(port: int, servers: Sequence[Server], fail_open: Set[str]) -> PortView:
    views = tuple(_server_view(server, fail_open) for server in servers)
    return PortView(
        port=port,
        is_tls=any(server.is_tls for server in servers),
        servers=views,
        has_default=any(view.is_default for view in views),
    )


def _server_view(server: Server, fail_open: Set[str]) -> ServerView:
    return ServerView(
        server=server,
        hostnames=tuple("_" if hostname == "*" else hostname for hostname in server.hostnames),
        is_default="*" in server.hostnames,
        certificate_files=tuple(
            (f"{certificate_name(server, index)}.crt", f"{certificate_name(server, index)}.key")
            for index in range(len(server.certificates))
        ),
        locations=tuple(
            LocationView(path=location.path, is_exact=location.is_exact, jump=_jump(location))
            for location in server.locations
        ),
        has_root=any(location.path == "/" and not location.is_exact for location in server.locations),
        rules=tuple(_rule_view(rule, server, fail_open) for rule in server.rules),
    )


def _rule_maps(locations: Iterable[Location]) -> Iterable[RuleMap]:
    return (found for found in map(rule_map, locations) if found)


def _flag_views(maps: Iterable[RuleMap]) -> tuple[FlagView, ...]:
    users: dict[Flag, set[str]] = {}
    for found in maps:
        for choice in found.choices:
            for flag in choice.flags:
                users.setdefault(flag, set()).add(str(choice.rule.route))
    return tuple(FlagView(flag, ", ".join(sorted(users[flag]))) for flag in sorted(users))


def _jump(location: Location) -> str:
    chosen = rule_map(location)
    if chosen:
        return chosen.variable
    return f"@{location.cases[0].rule.id}" if location.cases else NOT_FOUND


def _rule_view(rule: Rule, server: Server, fail_open: Set[str]) -> RuleView:
    location = f"@{rule.id}"
    redirect = next((item for item in rule.filters if isinstance(item, Redirect)), None)
    drawn = [(index, backend) for index, backend in enumerate(rule.backends) if backend.weight > 0]
    split, fine = splits([backend.weight for _, backend in drawn]) if len(drawn) > 1 and not redirect else (None, None)
    return RuleView(
        rule=rule,
        location=location,
        redirect=redirect,
        redirect_port=_redirect_port(redirect, server) if redirect else None,
        backends=tuple(
            _backend_view(rule, backend, location if len(drawn) == 1 else f"{location}/{index}", fail_open)
            for index, backend in drawn
        ),
        split=split,
        fine_split=fine,
        split_variable=f"$backend_{digest(rule.id)}",
        weights=" / ".join(str(backend.weight) for backend in rule.backends),
    )


def _backend_view(rule: Rule, backend: Backend, location: str, fail_open: Set[str]) -> BackendView:
    filters = (*rule.filters, *backend.filters)
    rewrites = [item for item in filters if isinstance(item, Rewrite)]
    headers, answer = request_headers(filters), answer_headers(filters)
    target = backend.target
    return BackendView(
        location=location,
        serve_location=f"{location}/serve",
        target=target,
        upstream=_upstream_name(target),
        fails_open=isinstance(target, ToPool) and target.pool in fail_open,
        headers=None if headers == request_headers() else headers,
        answer=None if answer == answer_headers() else answer,
        hostname=next((item.hostname for item in rewrites if item.hostname), None),
        path=next((item.path for item in rewrites if item.path), None),
    )


def _redirect_port(redirect: Redirect, server: Server) -> int | None:
    """The port to write into a Location.

    Source: Gateway API, HTTPRequestRedirectFilter.port.
    """
    scheme = redirect.scheme or ("https" if server.is_tls else "http")
    implied = {"http": 80, "https": 443}[scheme]
    port = redirect.port or (implied if redirect.scheme else server.port)
    return None if port == implied else port


def _upstream_name(target: ToUpstream | ToPool | ToStatus) -> str:
    match target:
        case ToUpstream(upstream=upstream):
            return _service_upstream(upstream)
        case ToPool(pool=pool):
            return f"pool_{name(pool)}"
        case ToStatus():
            return ""


def _service_upstream(upstream: str) -> str:
    return f"service_{name(upstream)}"


def _pool_view(pool: Pool) -> PoolView:
    addresses = sorted({endpoint.address for endpoint in pool.endpoints})
    return PoolView(
        pool=pool,
        upstream=f"pool_{name(pool.name)}",
        endpoints=tuple(EndpointView(address, f"endpoint_{name(address)}") for address in addresses),
    )


def _all_filters(rule: Rule) -> Iterable[Filter]:
    yield from rule.filters
    for backend in rule.backends:
        yield from backend.filters


def _path_change(item: Filter) -> PathChange | None:
    return item.path if isinstance(item, Redirect | Rewrite) else None
