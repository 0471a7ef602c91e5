"""A picker that serves gateways: its parts, its server and the place that its pools come from."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from controller.picker.config import PickerSettings
from controller.picker.ext_proc.server import ExtProcServer
from controller.picker.parts import Parts
from controller.picker.pools import PoolTable
from controller.picker.server import Service, serve
from controller.plugins.installed import installed
from controller.plugins.types import AppliedPolicy


async def serve_gateways(settings: PickerSettings, *, rng: random.Random, stopping: asyncio.Event) -> None:
    """Serve until told to stop, then finish the exchanges in hand.

    Raises OSError when an address cannot be bound, SettingInvalid when a setting cannot be used.
    """
    ext_proc = settings.ext_proc
    assert ext_proc is not None  # whoever calls this has looked
    cluster = ext_proc.cluster
    if cluster is None:
        await serve(
            settings,
            rng=rng,
            stopping=stopping,
            service_of=lambda parts: ExtProcServer(parts, ext_proc, grace=settings.grace),
        )
        return
    # Imported here alone: what reads a cluster takes 40 MB.
    from controller.picker.ext_proc.sources import FollowedPools, feed, wanted_of

    wanted_of(cluster)
    policy = _policy(settings)
    followed: list[FollowedPools] = []

    def source_of(table: PoolTable) -> FollowedPools:
        followed.append(FollowedPools(table, policy))
        return followed[0]

    def service_of(parts: Parts) -> Service:
        server = ExtProcServer(parts, ext_proc, grace=settings.grace)
        return _Fed(server, feeding=lambda: feed(followed[0], cluster))

    await serve(settings, rng=rng, stopping=stopping, source_of=source_of, service_of=service_of)


class _Fed:
    """A server beside what follows its pool. See `Service`."""

    def __init__(
        self, server: Service, *, feeding: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:  # Any: what it yields and is sent
        self._server = server
        self._feeding = feeding

    async def run(self, stopping: asyncio.Event) -> None:
        """See `Service`."""
        serving = asyncio.create_task(self._server.run(stopping))
        feeding = asyncio.create_task(self._feeding())
        try:
            await asyncio.wait((serving, feeding), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                # It ends by a fault alone.
                stopping.set()
            await serving
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if not feeding.cancelled():
            feeding.result()


def _policy(settings: PickerSettings) -> AppliedPolicy | None:
    assert settings.ext_proc is not None  # whoever calls this has looked
    cluster = settings.ext_proc.cluster
    if cluster is None or cluster.policy is None:
        return None
    # Imported here alone: without a file there is no use for YAML.
    from controller.picker.replay.policy import policy_in

    return policy_in(cluster.policy, catalogue=installed())
