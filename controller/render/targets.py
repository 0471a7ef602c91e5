"""What rules send requests to, and what of it the views of rules have to know."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from controller.ir.filters import Redirect
from controller.ir.policies import BackendTls
from controller.ir.types import GatewayConfig, Rule, Server, Target, ToPool, ToStatus, ToUpstream
from controller.pools import FailureMode
from controller.render.certificates import TlsView, tls_view
from controller.render.dialed import dialed_pools, is_dialed
from controller.render.names import endpoint_variable, pool_upstream, service_upstream


@dataclass(frozen=True)
class Targets:
    """What sets upstreams and pools of a configuration apart."""

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

    def upstream_of(self, target: Target, server: Server) -> str:
        """Name of the nginx upstream; empty without one."""
        match target:
            case ToUpstream(upstream=upstream):
                shown = server.client_certificate if upstream in self.dialed else None
                return service_upstream(upstream, shown=shown)
            case ToPool(pool=pool):
                return pool_upstream(pool, shown=server.client_certificate if pool in self.dialed_pools else None)
            case ToStatus():
                return ""

    def endpoint_variable_of(self, target: Target, server: Server) -> str:
        if not isinstance(target, ToPool) or target.tls is None:
            return ""
        shown = server.client_certificate if target.pool in self.dialed_pools else None
        return endpoint_variable(target.pool, shown=shown)

    def tls_of(self, target: Target) -> TlsView | None:
        """How nginx itself speaks to a target; None in plain text, or by way of the dialer."""
        match target:
            case ToUpstream(upstream=upstream):
                return self.tls.get(upstream)
            case ToPool(pool=pool, tls=tls):
                return tls_view(tls) if tls and pool not in self.dialed_pools else None
            case ToStatus():
                return None

    def rewrites(self, rule: Rule) -> bool:
        """Whether it leads to a pool that gives models other names."""
        targets = (backend.target for backend in rule.backends if backend.weight > 0)
        return any(isinstance(target, ToPool) and target.pool in self.rewriting for target in targets) and not any(
            isinstance(item, Redirect) for item in rule.filters
        )


def known_targets(config: GatewayConfig) -> Targets:
    own = [pool for pool in config.pools if pool.external is None]
    return Targets(
        fail_open=frozenset(pool.name for pool in config.pools if pool.failure_mode is FailureMode.FAIL_OPEN),
        rewriting=frozenset(pool.name for pool in own if pool.rewrites),
        refusing=frozenset(pool.name for pool in config.pools if pool.policy.refuse_unknown_models),
        http2=frozenset(upstream.name for upstream in config.upstreams if upstream.speaks_http2),
        tls={item.name: tls_view(item.tls) for item in config.upstreams if item.tls and not is_dialed(item.tls)},
        dialed=frozenset(upstream.name for upstream in config.upstreams if is_dialed(upstream.tls)),
        http2_pools=frozenset(pool.name for pool in config.pools if pool.speaks_http2),
        relayed=frozenset(pool.name for pool in config.pools if pool.external is not None),
        dialed_pools=dialed_pools(config),
    )


def drawn_pools(rules: Iterable[Rule]) -> list[str]:
    """Names of the pools that get a share, sorted."""
    backends = [backend for rule in rules for backend in rule.backends if backend.weight > 0]
    return sorted({backend.target.pool for backend in backends if isinstance(backend.target, ToPool)})
