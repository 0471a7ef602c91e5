"""A data plane on this machine: nginx and the picker as children of this process."""

import asyncio
import hashlib
import json
import logging
import math
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.agent import client, leftovers
from controller.agent.apply import Applied, Applier, Options
from controller.agent.nginx import Nginx
from controller.agent.state import PICKER_SOCKET, State, locked, replace_file
from controller.agent.supervise import Check, Program, Supervisor
from controller.bundle import Bundle, Pool, Pools, encode_pools, pools_of
from controller.dataplane.base import Report
from controller.errors import PickerNotRunning

log = logging.getLogger(__name__)

_RETIREMENT = 10.0
"""Seconds for which the picker knows a pool that is gone. A worker that a reload retires still serves one request on
each connection that was used in the last second, and requests that it has already may be retried."""

_POOLS_READ = 2.0
"""Seconds that the picker has to read pools; it looks every 0.1 s."""


def default_state(directory: Path, *, environment: Mapping[str, str] = os.environ) -> Path:
    """State directory for the gateway of an input directory: the same each time, another for each directory."""
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "infergate" / hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]


class LocalDataPlane:
    """Keeps nginx and the picker running in a state directory.

    The picker starts with the first bundle, when its pools are known, and nginx after it. The picker stops after nginx.
    """

    def __init__(
        self,
        root: Path,
        nginx: Nginx,
        picker_command: Sequence[str],
        *,
        options: Options | None = None,
        picker_timeout: float = 15.0,
        retirement: float = _RETIREMENT,
    ) -> None:
        """`picker_command` runs in the state directory; empty for a data plane without a picker.

        `picker_timeout` is the time in seconds that the picker has to become ready, `retirement` the time for which it
        knows a pool that is gone.
        """
        self._root = root
        self._nginx = nginx
        self._picker_command = tuple(picker_command)
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
        """Etag of the pools file."""

    async def __aenter__(self) -> Self:
        """Raises StateUnusable when the state directory cannot be written or is in use."""
        async with AsyncExitStack() as stack:
            self._state = stack.enter_context(locked(self._root))
            await leftovers.take_down(self._state, [self._picker_command])
            self._picker = Supervisor(_picker_program(self._picker_command, self._state))
            stack.push_async_callback(self._picker.stop)
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
        """None while the picker does not run."""
        return self._picker.pid

    @property
    def reload_pause(self) -> float:
        """See `DataPlane`."""
        return self._applier.reload_pause

    async def apply(self, bundle: Bundle) -> Report:
        """Raises StateUnusable, NginxNotRunning, and PickerNotRunning when the picker does not become ready in time."""
        async with self._turn:
            begun = asyncio.get_running_loop().time()
            known = {pool.name for pool in self._pools.pools}
            self._retire(bundle.pools)
            await self.apply_pools(bundle.pools)
            await self._wait_for_picker()
            if not {pool.name for pool in bundle.pools.pools} <= known:
                await self._wait_for_pools()
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
        self._written = written.etag
        replace_file(self._state.pools, encode_pools(written))

    async def _wait_for_picker(self) -> None:
        """Start the picker unless it runs, and wait until it was ready once."""
        if not self._picker_command or self._picker.is_started:
            return
        self._picker.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._picker_timeout
        while loop.time() < deadline and self._picker.ends < 5:
            answer = await client.ask(self._state, "/readyz", socket=PICKER_SOCKET, timeout=1.0)
            if answer.status == 200:
                self._picker.vouch()
                return
            await asyncio.sleep(0.02)
        await self._picker.stop()
        said = f"; it said last: {self._picker.last_line}" if self._picker.last_line else ""
        raise PickerNotRunning(f"the picker did not become ready in {self._picker_timeout:g} s{said}")

    async def _wait_for_pools(self) -> None:
        """Wait until the picker has read the pools, so that no request of a new version asks for one in vain.

        A picker that does not get there in time is no reason to hold up the version.
        """
        if not self._picker_command:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _POOLS_READ
        while loop.time() < deadline:
            answer = await client.ask(self._state, "/readyz", socket=PICKER_SOCKET, timeout=1.0)
            if answer.body.split() == [b"ok", self._written.encode()]:
                return
            await asyncio.sleep(0.01)
        log.warning("the picker has not read the newest pools", extra={"etag": self._written})


def _picker_program(command: tuple[str, ...], state: State) -> Program:
    async def is_well() -> bool:
        return (await client.ask(state, "/healthz", socket=PICKER_SOCKET, timeout=1.0)).status == 200

    def prepare() -> None:
        (state.root / PICKER_SOCKET).unlink(missing_ok=True)

    return Program(
        name="picker",
        command=command,
        directory=state.root,
        stops=((signal.SIGTERM, 5.0),),
        leash=signal.SIGKILL,
        orphans=signal.SIGKILL,
        prepare=prepare,
        level=_level,
        check=Check(is_well),
    )


def _level(line: str) -> int | None:
    """Level that a line of the picker's log names, in JSON or in text; None for one that goes on, as in a traceback."""
    name: object = None
    if line.startswith("{"):
        try:
            name = json.loads(line).get("level")
        except ValueError:
            return None
    elif found := re.search(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b", line[:80]):
        name = found[1]
    return logging.getLevelNamesMapping().get(str(name).upper())
