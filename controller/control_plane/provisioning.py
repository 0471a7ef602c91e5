"""Keeps the objects of all data planes as they should be: on changes, on becoming the leader, and every so often."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from controller.backoff import Backoff
from controller.dataplane.addresses import Reached, reached
from controller.dataplane.manifests import ControlPlane, manifests
from controller.dataplane.provision import Api, Provisioned, Provisioner
from controller.errors import ApiError, ApiRefused
from controller.resources.meta import Key
from controller.topology.types import GatewayState

log = logging.getLogger(__name__)

_EVERY: Final = 20.0
"""Seconds between two looks at the objects of each Gateway, for what others changed of them."""
_RETRY: Final = 1.0
"""Seconds after which an API server that did not answer is asked again. They double, up to those between two looks."""
_CONCURRENCY: Final = 8


@dataclass(frozen=True)
class Standing:
    """What is known of a Gateway's objects."""

    reached: Reached
    problems: tuple[str, ...] = ()
    replicas: int = 0
    """As in Provisioned."""


@dataclass
class _Retry:
    backoff: Backoff
    timer: asyncio.TimerHandle | None = None


@dataclass
class Provisioning:
    """Provisions what is wanted, while this replica leads. Until then it looks on, so that it knows when it does.

    on_change is told that the standing of a Gateway is another one.
    """

    api: Api
    control_plane: Callable[[], ControlPlane]
    is_leader: Callable[[], bool]
    on_change: Callable[[], None] = lambda: None
    every: float = _EVERY
    _wanted: Mapping[Key, GatewayState] = field(default_factory=dict, init=False)
    _standings: dict[Key, Standing] = field(default_factory=dict, init=False)
    _due: set[Key] = field(default_factory=set, init=False)
    _retries: dict[Key, _Retry] = field(default_factory=dict, init=False)
    """Of the Gateways whose last look failed."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self._provisioner = Provisioner(self.api)

    @property
    def gateways(self) -> tuple[Key, ...]:
        """Those that are wanted."""
        return tuple(self._wanted)

    def want(self, gateways: Sequence[GatewayState]) -> None:
        """Makes these the Gateways that have data planes. The objects of one that is gone go with it."""
        before, self._wanted = self._wanted, {gateway.key: gateway for gateway in gateways}
        for key in before.keys() - self._wanted.keys():
            self._provisioner.forget(key)
            self._standings.pop(key, None)
            self._rest(key)
        for key, gateway in self._wanted.items():
            if before.get(key) != gateway:
                self.look_at(key)

    def look_at(self, gateway: Key) -> None:
        """Compares the objects of a Gateway soon."""
        if gateway in self._wanted:
            self._due.add(gateway)
            self._wake.set()

    def look_at_all(self) -> None:
        """Compares the objects of all Gateways soon."""
        for key in self._wanted:
            self.look_at(key)

    def standing(self, gateway: Key) -> Standing | None:
        """What is known of a Gateway's objects; None until they were looked at."""
        return self._standings.get(gateway)

    async def run(self) -> None:
        """Provisions, or looks on, until it is cancelled."""
        limit = asyncio.Semaphore(_CONCURRENCY)
        clock = asyncio.get_running_loop().time
        due_at = clock() + self.every
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._wake.wait()
            if clock() >= due_at:  # However often something else is due.
                due_at = clock() + self.every
                if self.is_leader():  # Who looks on is told of changed Services.
                    self.look_at_all()
            self._wake.clear()
            due, self._due = sorted(self._due), set()
            await asyncio.gather(*(self._look(key, limit=limit) for key in due))

    async def _look(self, key: Key, *, limit: asyncio.Semaphore) -> None:
        gateway = self._wanted.get(key)
        if gateway is None:
            return
        try:
            async with limit:
                found = await (self._provision(gateway) if self.is_leader() else self._look_on(gateway))
        except ApiError as problem:
            self._retry(key, problem)
            return
        if key not in self._wanted:
            return
        if found.busy is not None:
            self._retry(key, found.busy)
        elif found.is_waiting:
            self._look_later(key)
        else:
            self._rest(key)
        if found.changed:
            log.info("data plane provisioned", extra={"gateway": key.path, "changed": ", ".join(found.changed)})
        self._note(gateway, found)

    async def _provision(self, gateway: GatewayState) -> Provisioned:
        return await self._provisioner.provision(gateway.key, manifests(gateway, control_plane=self.control_plane()))

    async def _look_on(self, gateway: GatewayState) -> Provisioned:
        """The objects as the leader made them. What it could not do is not known here."""
        known = self._standings.get(gateway.key)
        service = await self._provisioner.service(gateway.key, uid=gateway.data_plane.uid)
        return Provisioned(known.problems if known else (), service, replicas=known.replicas if known else 0)

    def _retry(self, key: Key, problem: ApiError) -> None:
        if key not in self._wanted:
            return
        log.warning("data plane cannot be provisioned", extra={"gateway": key.path, "problem": str(problem)})
        self._look_later(key, at_least=problem.wait if isinstance(problem, ApiRefused) else 0.0)

    def _look_later(self, key: Key, *, at_least: float = 0.0) -> None:
        """Has a Gateway looked at again soon, and later each time."""
        retry = self._retries.setdefault(key, _Retry(Backoff(first=_RETRY, longest=self.every)))
        if retry.timer is not None:
            retry.timer.cancel()
        delay = retry.backoff.delay(at_least=at_least)
        retry.timer = asyncio.get_running_loop().call_later(delay, self.look_at, key)

    def _rest(self, key: Key) -> None:
        """After a look that did all it should."""
        retry = self._retries.pop(key, None)
        if retry is not None and retry.timer is not None:
            retry.timer.cancel()

    def _note(self, gateway: GatewayState, found: Provisioned) -> None:
        problems = found.problems
        if found.busy is not None:
            # What was wrong may still be; that the API server is busy is nothing that is wrong with the Gateway.
            before = self._standings.get(gateway.key)
            problems = tuple(sorted({*problems, *(before.problems if before else ())}))
        standing = Standing(reached(found.service, wanted=gateway.addresses), problems, found.replicas)
        if self._standings.get(gateway.key) != standing:
            self._standings[gateway.key] = standing
            self.on_change()
