"""Makes the views of servers: their locations, and which rules share one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.ir.types import GatewayConfig, Location, Rule, Server
from controller.render.backend_views import Bearing
from controller.render.certificates import authorities_name, certificate_files
from controller.render.copies import copies_socket, copies_upstream
from controller.render.hidden import BASE, hidden_by
from controller.render.maps import Place, digest
from controller.render.memory import Memory
from controller.render.names import socket_of_http
from controller.render.rule_views import RuleViews
from controller.render.sharing import Plain, Sharing, sharing_of
from controller.render.targets import Targets, drawn_pools
from controller.render.views import CopiesView, LocationView, PortView, RuleView, ServerView, SharedView

_NO_RULE: Final = "@infergate_error"


@dataclass(frozen=True)
class ServerViews:
    """Makes them for one configuration."""

    targets: Targets
    rules: RuleViews
    places: Mapping[int, Place | None]
    """By the identity of a location."""
    variables: Mapping[str, str]
    """Of the map that is asked first, by the id of a place."""
    memory: Memory

    def sharing(self, config: GatewayConfig) -> Sharing:
        reading = (place for server in config.servers for place in server.locations if self.reads_model(place))
        others = self.targets.tls.keys() | self.targets.http2 | self.targets.dialed
        other_pools = self.targets.rewriting | self.targets.http2_pools | self.targets.relayed
        return sharing_of(
            (self.reached(server) for server in config.servers),
            plain=Plain(
                upstreams=frozenset(upstream.name for upstream in config.upstreams if upstream.name not in others),
                pools=frozenset(pool.name for pool in config.pools if pool.name not in other_pools),
            ),
            apart={case.rule.id for place in reading for case in place.cases},
        )

    def server(self, server: Server, sharing: Sharing) -> ServerView:
        named = {rule.id for rule in self.reached(server)} - sharing.locations.keys()
        read = {case.rule.id for location in server.locations if self.reads_model(location) for case in location.cases}
        hidden = hidden_by(server, memory=self.memory)
        rules = {
            rule.id: self.rules.known_rule(
                rule, server, Bearing(is_named=rule.id in named, is_read=rule.id in read, hidden=hidden)
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
        reads_models = any(self.targets.rewrites(rule) for rule in server.rules)
        bearing = Bearing(is_named=True, is_read=reads_models, hidden=BASE)
        upstream = copies_upstream(shown)
        return CopiesView(
            socket=copies_socket(shown),
            upstream=upstream,
            variable=f"$copied_{digest(upstream)}",
            client_certificate=certificate_files(shown) if shown else None,
            reads_models=reads_models,
            rules=tuple(self.rules.rule(rule, server, bearing) for rule in server.rules),
        )

    def reached(self, server: Server) -> list[Rule]:
        """The rules that something jumps to."""
        places = (location for location in server.locations if not self.is_direct(location))
        found = {case.rule.id for location in places for case in location.cases}
        return [rule for rule in server.rules if rule.id in found]

    def location(self, location: Location, rules: Mapping[str, RuleView]) -> LocationView:
        last = rules[location.cases[-1].rule.id] if location.is_complete else None
        place = self.places[id(location)]
        pools = drawn_pools(case.rule for case in location.cases) if place and place.asks_for_model else []
        return LocationView(
            path=location.path,
            is_exact=location.is_exact,
            rule=last if self.is_direct(location) else None,
            place=place.id if place else "",
            chooser=self.variables[place.id] if place else "$infergate_default",
            reads_model=self.reads_model(location),
            default=last.target if last else _NO_RULE,
            pools=",".join(pools),
            names_models=not self.targets.refusing.isdisjoint(pools),
        )

    def is_direct(self, location: Location) -> bool:
        """Whether its one rule needs no look at the request first."""
        return self.places[id(location)] is None and not self.reads_model(location)

    def reads_model(self, location: Location) -> bool:
        """Whether a rule is chosen by the model, or leads to a pool that gives models other names."""
        place = self.places[id(location)]
        if place is not None and place.asks_for_model:
            return True
        return bool(self.targets.rewriting) and any(self.targets.rewrites(case.rule) for case in location.cases)


def port_view(servers: Sequence[ServerView], *, is_shared: bool) -> PortView:
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
