"""Where the rules of a configuration send requests."""

from collections.abc import Iterable

from controller.ir.types import GatewayConfig, Target
from controller.render.copies import copied_to_pools


def targets_of(config: GatewayConfig) -> Iterable[Target]:
    """Where rules send requests, and copies to pools, with repetition."""
    for rule in (rule for server in config.servers for rule in server.rules):
        yield from (backend.target for backend in rule.backends)
        yield from copied_to_pools(rule)
