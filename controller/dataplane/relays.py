"""The relay beside nginx: a child of the process that runs nginx, from the first pool with an external picker on."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Final

from controller.agent import client
from controller.agent.state import RELAY_SOCKET, State
from controller.agent.supervise import Supervisor
from controller.dataplane.children import answering
from controller.pools import POOLS_FILE, Pools

log = logging.getLogger(__name__)

_READY: Final = 15.0
"""Seconds for its start. After that nginx goes on without it, and the pools' failure modes decide."""
_MISSES: Final = 15
"""Answers that it may owe in a row, of a second each. To kill it cuts every stream that passes through it, and a burst
of thousands of requests on a busy machine keeps it for seconds."""


def relay_command() -> tuple[str, ...]:
    """The relay as a child process, run in the state directory."""
    options = ("--socket", RELAY_SOCKET, "--pools", POOLS_FILE, "--spill", "tmp")
    return (sys.executable, "-m", "controller", "--log-format", "bare", "relay", *options)


class Relay:
    """Runs where a pool needs it."""

    def __init__(self, command: Sequence[str], state: State, *, timeout: float = _READY) -> None:
        """`timeout` is the time in seconds that it has to know the newest pools."""
        self._state = state
        self._timeout = timeout
        self._supervisor = Supervisor(answering("relay", tuple(command), state, socket=RELAY_SOCKET, misses=_MISSES))

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._supervisor.pid

    async def follow(self, pools: Pools) -> None:
        """Start it if one of the pools, which were written, needs it, and wait until it knows them."""
        if not any(pool.external is not None for pool in pools.pools):
            return
        if not self._supervisor.is_started:
            self._supervisor.start()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while loop.time() < deadline:
            answer = await client.ask(self._state, "/readyz", socket=RELAY_SOCKET, timeout=1.0)
            if answer.body.split() == [b"ok", pools.etag.encode()]:
                self._supervisor.vouch()
                return
            await asyncio.sleep(0.02)
        log.warning("the relay did not become ready", extra={"said": self._supervisor.last_line})

    async def metrics(self) -> bytes:
        """As Prometheus reads them; empty where it does not run, or does not answer."""
        if self.pid is None:
            return b""
        answer = await client.ask(self._state, "/metrics", socket=RELAY_SOCKET, timeout=1.0)
        return answer.body if answer.status == 200 else b""

    async def stop(self) -> None:
        await self._supervisor.stop()
