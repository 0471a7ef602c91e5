"""What the templates loop over: the configuration with every name, map and header list worked out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.ir.filters import Filter
from controller.ir.streams import Transport
from controller.ir.types import GatewayConfig, Rule
from controller.render.backend_views import BackendViews
from controller.render.choosing import rule_maps
from controller.render.copies import copies_servers
from controller.render.cors import CorsView
from controller.render.headers import appended_headers, joined_variable
from controller.render.lookups import Exact, LookupMap
from controller.render.maps import Flag, RuleMap, header_variable, place_of
from controller.render.memory import Memory
from controller.render.quoting import expression
from controller.render.rule_views import RuleViews
from controller.render.server_views import ServerViews, port_view
from controller.render.sessions import SessionView
from controller.render.splitting import SplitView, StickyView
from controller.render.targets import known_targets
from controller.render.upstream_views import EndpointView, PoolView, UpstreamView, pool_views, upstream_views
from controller.render.views import CopiesView, PortView, RuleView


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
    def has_relay(self) -> bool:
        return any(view.pool.external is not None for view in self.pools)


def config_view(config: GatewayConfig, *, memory: Memory | None = None, around: tuple[object, ...] = ()) -> ConfigView:
    """Everything the templates need of a configuration.

    `memory` is that of the views before, `around` what the templates are given beside views.
    """
    # By identity, since a location is compared by all that it leads to.
    places = {id(location): place_of(location) for server in config.servers for location in server.locations}
    maps = rule_maps(place for place in places.values() if place)
    targets = known_targets(config)
    memory = memory or Memory()
    memory.turn(*around, targets)
    views = ServerViews(
        targets=targets,
        rules=RuleViews(BackendViews(targets), memory),
        places=places,
        variables=maps.variables,
        memory=memory,
    )
    sharing = views.sharing(config)
    streams = {server.port for server in config.streams if server.transport is Transport.TCP}
    ports = tuple(
        port_view(
            [views.server(server, sharing) for server in config.servers if server.port == port],
            is_shared=port in streams,
        )
        for port in sorted({server.port for server in config.servers})
    )
    rules = {view.rule.id: view for port in ports for server in port.servers for view in server.rules}
    filters = [item for view in rules.values() for item in _all_filters(view.rule)]
    pools = tuple(pool_views(config, behind=targets.dialed_pools))
    splits = tuple(split for name in sorted(rules) for split in _splits_of(rules[name]))
    return ConfigView(
        ports=ports,
        upstreams=tuple(upstream_views(config)),
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


def _all_filters(rule: Rule) -> Iterable[Filter]:
    yield from rule.filters
    for backend in rule.backends:
        yield from backend.filters
