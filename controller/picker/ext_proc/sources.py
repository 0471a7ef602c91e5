"""Where the pools of a server come from that finds them by itself."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from controller.membership.cluster import Wanted, check, follow
from controller.picker.config import PoolOfCluster
from controller.picker.pools import PoolTable
from controller.plugins.installed import installed
from controller.plugins.types import AppliedPolicy
from controller.pools import Pools, pools_of

log = logging.getLogger(__name__)


class FollowedPools:
    """Takes pools that somebody puts in, and serves the newest. See `PoolsSource`."""

    def __init__(self, table: PoolTable, policy: AppliedPolicy | None = None) -> None:
        """`policy` takes the place of what the pools bring."""
        self._table = table
        self._policy = policy
        self._newest: Pools | None = None
        self.errors = 0

    def put(self, pools: Pools) -> None:
        """Serve these from the next look on."""
        self._newest = pools if self._policy is None else with_policy(pools, self._policy)

    def refresh(self) -> bool:
        """See `PoolsSource`."""
        newest, self._newest = self._newest, None
        if newest is None:
            return False
        self._table.apply(newest)
        log.info(
            "pools read", extra={"etag": newest.etag, "endpoints": sum(len(one.endpoints) for one in newest.pools)}
        )
        return True


def with_policy(pools: Pools, policy: AppliedPolicy) -> Pools:
    """Pools with a policy in the place of their own."""
    return pools_of(tuple(msgspec.structs.replace(pool, policy=policy) for pool in pools.pools))


def wanted_of(settings: PoolOfCluster) -> Wanted:
    """Raises SettingInvalid when no such pool can be followed."""
    wanted = Wanted(settings.namespace, settings.name, settings.selector, settings.ports)
    check(wanted, group=settings.group)
    return wanted


async def feed(into: FollowedPools, settings: PoolOfCluster) -> None:
    """Follow a cluster, until it is cancelled. Raises SettingInvalid when nothing says where it is."""
    following: AsyncGenerator[Pools, None] = follow(
        wanted_of(settings), kubeconfig=settings.kubeconfig, catalogue=installed()
    )
    async with aclosing(following) as found:
        async for pools in found:
            into.put(pools)
