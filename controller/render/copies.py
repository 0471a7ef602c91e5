"""Copies of requests to pools.

In nginx a copy is a subrequest, which shares the variables of its request, and so would share the pick. Those to pools
go through a server of their own on a socket of the state directory, where each is a request like any other: it is
picked for, tried again and counted.
"""

from collections.abc import Iterable
from typing import Final

from controller.ir.filters import Mirror
from controller.ir.types import Backend, Certificate, GatewayConfig, Rule, Server, ToPool
from controller.render.maps import digest
from controller.render.quoting import name
from controller.resources.inference import InferencePool
from controller.resources.meta import Key

_OWNER: Final = Key("gateway.networking.k8s.io", "Gateway", "", "")


def copied_to_pools(rule: Rule) -> Iterable[ToPool]:
    """Pools that get copies of a rule's requests."""
    filters = (*rule.filters, *(item for backend in rule.backends for item in backend.filters))
    return (ToPool(item.pool, item.tls) for item in filters if isinstance(item, Mirror) and item.pool)


def copies_servers(config: GatewayConfig) -> tuple[Server, ...]:
    """One for each certificate that Gateways show to backends, with a rule for each pool that gets copies, sorted."""
    found: dict[str, tuple[Certificate | None, dict[str, ToPool]]] = {}
    for server in config.servers:
        for target in (target for rule in server.rules for target in copied_to_pools(rule)):
            shown = server.client_certificate
            found.setdefault(copies_upstream(shown), (shown, {}))[1][target.pool] = target
    return tuple(_server(*found[upstream]) for upstream in sorted(found))


def copies_upstream(shown: Certificate | None) -> str:
    """Name in nginx of the upstream of such a server."""
    return f"infergate_copies_{name(shown.source.path)}" if shown else "infergate_copies"


def copies_socket(shown: Certificate | None) -> str:
    """Where it listens. The path of a socket is short, a name need not be."""
    return f"unix:run/copies_{digest(shown.source.path)}.sock" if shown else "unix:run/copies.sock"


def _server(shown: Certificate | None, pools: dict[str, ToPool]) -> Server:
    return Server(
        owner=_OWNER,
        listener="",
        port=0,
        hostnames=("*",),
        certificates=(),
        locations=(),
        rules=tuple(_rule(pools[pool]) for pool in sorted(pools)),
        client_certificate=shown,
    )


def _rule(target: ToPool) -> Rule:
    namespace, _, own = target.pool.rpartition("/")
    pool = Key(InferencePool.group, "InferencePool", namespace, own)
    return Rule(pool, 0, "", filters=(), backends=(Backend(target, weight=1),))
