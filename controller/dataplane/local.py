"""A data plane on this machine: nginx as a child of this process, and the picker beside it."""

import asyncio
import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.agent import client, leftovers
from controller.agent.apply import Applied, Applier, Options
from controller.agent.nginx import Nginx
from controller.agent.state import State, locked, replace_file
from controller.bundle import Bundle
from controller.dataplane.base import Report
from controller.dataplane.dialers import COMMAND as DIALER_COMMAND
from controller.dataplane.dialers import Dialer
from controller.dataplane.pickers import ChildPicker, NeighbourPicker, Picker, wait_for_pools
from controller.dataplane.relays import Relay, relay_command
from controller.errors import NginxRefused, PickerNotRunning, StateUnusable
from controller.pools import Pool, Pools, decode_pools, encode_pools, pools_of

log = logging.getLogger(__name__)

_RETIREMENT = 10.0
"""Seconds for which the picker knows a pool that is gone. A worker that a reload retires still serves one request on
each connection that was used in the last second, and requests that it has already may be retried."""


def default_state(directory: Path, *, environment: Mapping[str, str] = os.environ) -> Path:
    """State directory for the gateway of an input directory: the same each time, another for each directory.

    Raises StateUnusable for a user without a home.
    """
    try:
        states = Path(environment.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    except RuntimeError:
        raise StateUnusable("no state directory: the user has no home; set HOME or XDG_STATE_HOME") from None
    return states / "infergate" / hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]


class LocalDataPlane:
    """Keeps nginx and the picker running in a state directory.

    A picker that is a child starts with the first bundle, when its pools are known, and nginx after it; it stops after
    nginx.
    """

    def __init__(
        self,
        root: Path,
        nginx: Nginx,
        picker_command: Sequence[str],
        *,
        options: Options | None = None,
        relay: Sequence[str] | None = None,
        picker_timeout: float = 15.0,
        retirement: float = _RETIREMENT,
    ) -> None:
        """`picker_command` runs in the state directory; empty when the picker is started by somebody else. `relay` is
        another command for the relay.

        `picker_timeout` is the time in seconds that the picker has to become ready, `retirement` the time for which it
        knows a pool that is gone.
        """
        self._root = root
        self._nginx = nginx
        self._picker_command = tuple(picker_command)
        self._relay_command = relay_command() if relay is None else tuple(relay)
        self._options = options or Options()
        self._picker_timeout = picker_timeout
        self._retirement = retirement
        self._running = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._pools = pools_of(())
        self._retiring: dict[str, tuple[Pool, float]] = {}
        """Pools that the newest bundle does not have, by name, each with the loop time until which it is kept."""
        self._forgetting: asyncio.TimerHandle | None = None
        self._written = ""
        """Etag of the pools file; empty until it was written."""
        self._written_pools = pools_of(())
        """What is in it."""

    async def __aenter__(self) -> Self:
        """Raises StateUnusable when the state directory cannot be written or is in use."""
        async with AsyncExitStack() as stack:
            self._state = stack.enter_context(locked(self._root))
            await leftovers.take_down(self._state, [self._picker_command, DIALER_COMMAND, self._relay_command])
            self._picker: Picker = (
                ChildPicker(self._picker_command, self._state, timeout=self._picker_timeout)
                if self._picker_command
                else NeighbourPicker(self._state, timeout=self._picker_timeout)
            )
            stack.push_async_callback(self._picker.stop)
            self._dialer = Dialer(self._state)
            stack.push_async_callback(self._dialer.stop)
            self._relay = Relay(self._relay_command, self._state)
            stack.push_async_callback(self._relay.stop)
            self._applier = await stack.enter_async_context(Applier(self._state, self._nginx, options=self._options))
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self._running.aclose()

    @property
    def nginx_pid(self) -> int | None:
        """Of the nginx master; None while it does not run."""
        return self._applier.pid

    @property
    def picker_pid(self) -> int | None:
        """None while the picker does not run, or is not a child."""
        return self._picker.pid

    @property
    def dialer_pid(self) -> int | None:
        """None while there is nothing to dial."""
        return self._dialer.pid

    @property
    def relay_pid(self) -> int | None:
        """None while the relay does not run."""
        return self._relay.pid

    async def relay_metrics(self) -> bytes:
        """As Prometheus reads them; empty while the relay does not run."""
        return await self._relay.metrics()

    @property
    def reload_pause(self) -> float:
        """See `DataPlane`."""
        return self._applier.reload_pause

    @property
    def is_nginx_wanted(self) -> bool:
        """Whether nginx runs, or will when its time comes."""
        return self._applier.is_started

    async def version(self) -> str | None:
        """The version that nginx answers for at this moment; None when it does not answer."""
        return await client.version(self._state)

    async def resume(self) -> Applied | NginxRefused | None:
        """Serve what was served when the state directory was last used; None when there is nothing.

        Without a picker too: what needs none works, and the rest answers what its pool says. Raises as `apply`.
        """
        async with self._turn:
            if not self._state.current.is_symlink():
                return None
            self._pools = await asyncio.to_thread(_pools_kept, self._state)
            await self._relay.follow(self._pools)
            try:
                await self._picker.wait_until_ready()
            except PickerNotRunning as problem:
                log.warning("nginx starts without its picker", extra={"problem": str(problem)})
            await self._dialer.resume()
            return await self._applier.resume()

    async def stop_nginx(self) -> None:
        """End nginx, which finishes the requests in hand for as long as the options say. The picker goes on."""
        await self._applier.stop()

    async def apply(self, bundle: Bundle) -> Report:
        """Raises StateUnusable, NginxNotRunning, and PickerNotRunning when the picker does not become ready in time."""
        async with self._turn:
            begun = asyncio.get_running_loop().time()
            known = {pool.name for pool in self._pools.pools}
            self._retire(bundle.pools)
            await self.apply_pools(bundle.pools)
            await self._picker.wait_until_ready()
            if not {pool.name for pool in bundle.pools.pools} <= known:
                await wait_for_pools(self._state, self._written)
            await self._dialer.prepare(bundle)
            await self._relay.follow(self._written_pools)
            outcome = await self._applier.apply(bundle)
            seconds = asyncio.get_running_loop().time() - begun
            if not isinstance(outcome, Applied):
                return Report(bundle.gateway, bundle.version, serving=False, refusal=outcome, seconds=seconds)
            self._forget_later()
            return Report(bundle.gateway, bundle.version, serving=True, refusal=None, seconds=seconds)

    async def apply_pools(self, pools: Pools) -> None:
        """Raises StateUnusable when the pools cannot be written."""
        self._pools = pools
        self._write_pools()

    def _retire(self, newest: Pools) -> None:
        """Keep the pools that a bundle does not have, as long as an older version may be live."""
        kept = {pool.name for pool in newest.pools}
        self._retiring |= {pool.name: (pool, math.inf) for pool in self._pools.pools if pool.name not in kept}

    def _forget_later(self) -> None:
        """Drop pools that are gone once the workers of old versions no longer ask for them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._retirement
        self._retiring = {name: (pool, min(until, known)) for name, (pool, known) in self._retiring.items()}
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = loop.call_at(until, self._write_pools) if self._retiring else None

    def _write_pools(self) -> None:
        now = asyncio.get_running_loop().time()
        served = {pool.name for pool in self._pools.pools}
        self._retiring = {
            name: (pool, until) for name, (pool, until) in self._retiring.items() if until > now and name not in served
        }
        retiring = tuple(pool for pool, _ in self._retiring.values())
        written = pools_of((*self._pools.pools, *retiring)) if retiring else self._pools
        if written.etag != self._written:
            replace_file(self._state.pools, encode_pools(written))
            self._written, self._written_pools = written.etag, written


def _pools_kept(state: State) -> Pools:
    """Pools that the picker was given last; none when they cannot be read."""
    try:
        return decode_pools(state.pools.read_bytes())
    except (OSError, ValueError):
        return pools_of(())
