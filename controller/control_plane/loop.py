"""The loop of the control plane: snapshots and reports in; bundles, objects and statuses out.

Every replica does all of it but for writing: instances ask any of them, and the leader alone provisions and writes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from controller.control_plane.programmed import programmed
from controller.control_plane.provisioning import Provisioning, Standing
from controller.control_plane.publishing import Publishing
from controller.dataplane.addresses import reached
from controller.dataplane.instances import FORGOTTEN_AFTER
from controller.plugins.catalogue import BUILT_IN, Catalogue
from controller.provider.base import Change
from controller.reconcile import log_change
from controller.resources.gateway_api import CONTROLLER_NAME, Gateway
from controller.resources.meta import Key
from controller.resources.snapshot import Rejection, Snapshot
from controller.status.derive import derive
from controller.status.memory import Memory as StatusMemory
from controller.status.types import StatusUpdate
from controller.topology.build import build
from controller.topology.conditions import PROGRAMMED
from controller.topology.memory import Memory
from controller.topology.types import Topology

log = logging.getLogger(__name__)

_GATHER: Final = 0.03
"""Seconds in which reports are gathered: instances of a Gateway say the same at about the same time."""

_NOTHING: Final = Standing(reached(None, wanted=()))


@dataclass
class Loop:
    """Keeps the newest snapshot, and makes everything of it anew when it changes."""

    publishing: Publishing
    provisioning: Provisioning
    want: Callable[[tuple[StatusUpdate, ...]], None]
    """Told the statuses that all resources should have."""
    features: Callable[[], Sequence[str]] = tuple
    """Those that GatewayClasses name, at the moment."""
    versions: Callable[[], Mapping[str, str] | None] = lambda: None
    """Of definitions, at the moment, as `derive` takes them."""
    catalogue: Catalogue = BUILT_IN
    system_authorities: bytes | None = None
    """Certificates in PEM that this machine trusts; None without any."""
    _judged: set[Key] = field(default_factory=set, init=False)
    """Gateways of which enough is known for a status."""
    _settled_at: float = field(default=0.0, init=False)
    """Until when instances that say nothing may have had no time to."""
    _rejected: frozenset[Rejection] = field(default=frozenset(), init=False)
    _newest: tuple[Snapshot, Topology] | None = field(default=None, init=False)
    _memory: Memory = field(default_factory=Memory, init=False)
    _statuses: StatusMemory = field(default_factory=StatusMemory, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def is_ready(self) -> bool:
        """Whether instances that ask are told what the cluster says."""
        return self._newest is not None

    def wake(self) -> None:
        """Something is different that no snapshot tells: a report, an address, who leads."""
        self._wake.set()

    async def run(self, snapshots: AsyncIterator[tuple[Snapshot, Change]]) -> None:
        """Follows snapshots until they end."""
        self._settled_at = self.publishing.clock() + FORGOTTEN_AFTER
        pending = asyncio.ensure_future(anext(snapshots, None))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            while True:
                await asyncio.wait({pending, woken}, timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
                if pending.done():
                    item = pending.result()
                    if item is None:
                        return
                    self._take(*item)
                    pending = asyncio.ensure_future(anext(snapshots, None))
                    # Instances that wait are told first.
                    await asyncio.sleep(0)
                elif woken.done():
                    await asyncio.sleep(_GATHER)
                    self._look_at_reports()
                else:
                    self._publish()
                if woken.done():
                    self._wake.clear()
                    woken = asyncio.ensure_future(self._wake.wait())
                self._tell()
        finally:
            for task in (pending, woken):
                task.cancel()
            await asyncio.gather(pending, woken, return_exceptions=True)

    def _take(self, snapshot: Snapshot, change: Change) -> None:
        topology = build(
            snapshot,
            controller_name=CONTROLLER_NAME,
            now=datetime.now(UTC),
            catalogue=self.catalogue,
            system_authorities=self.system_authorities,
            memory=self._memory,
        )
        self._newest = (snapshot, topology)
        is_news = self._publish()
        self.provisioning.want([gateway for gateway in topology.gateways if gateway.serves])
        self._log_rejected(snapshot.rejections)
        if is_news:
            # Most objects of a cluster are nothing to us: what changes nothing that is served is not told.
            log_change(change, "published")

    def _log_rejected(self, rejections: Iterable[Rejection]) -> None:
        """Says once what cannot be read, and when that is over."""
        found = frozenset(rejections)
        for rejection in sorted(found - self._rejected):
            log.warning(str(rejection))
        for rejection in sorted(self._rejected - found):
            log.info("no longer: %s", rejection)
        self._rejected = found

    def _publish(self) -> bool:
        if self._newest is None:
            return False
        snapshot, topology = self._newest
        return self.publishing.publish(topology, snapshot)

    def _look_at_reports(self) -> None:
        if self._newest is not None:
            self.publishing.learn(self._newest[1])

    def _tell(self) -> None:
        if self._newest is None:
            return
        snapshot, topology = self._newest
        found = {}
        for gateway in topology.gateways:
            standing = self.provisioning.standing(gateway.key) or _NOTHING
            found[gateway.key] = programmed(
                self.publishing.server.reports(gateway.key.path),
                version=self.publishing.version(gateway.key),
                reached=standing.reached,
                problems=standing.problems,
                instances=max(standing.replicas, self.publishing.server.count(gateway.key.path)),
            )
        statuses = derive(
            topology,
            snapshot=snapshot,
            controller_name=CONTROLLER_NAME,
            programmed=found,
            refusals=self.publishing.refusals(topology),
            features=self.features(),
            versions=self.versions(),
            memory=self._statuses,
        )
        unknown = self._unknown(topology, snapshot)
        self.want(tuple(status for status in statuses if status.key not in unknown))

    def _unknown(self, topology: Topology, snapshot: Snapshot) -> Set[Key]:
        """Gateways of which this replica knows too little to say anything, and leaves the status as it is.

        Instances have the time of three reports to say that they are there: a control plane that starts again does not
        take back what the one before it said, or addresses would go from DNS for that while.
        """
        present = {gateway.key for gateway in topology.gateways}
        self._judged &= present
        if self._judged == present:
            return frozenset()
        programmed_before = {item.key for item in snapshot.of(Gateway) if _says_programmed(item)}
        for gateway in topology.gateways:
            is_seen = not gateway.serves or self.provisioning.standing(gateway.key) is not None
            if is_seen and (
                self.publishing.server.reports(gateway.key.path)
                or self.publishing.clock() >= self._settled_at
                or gateway.key not in programmed_before
            ):
                self._judged.add(gateway.key)
        return present - self._judged

    def _patience(self) -> float | None:
        now, due = self.publishing.clock(), self.publishing.due
        times = [*([] if due is None else [due]), *([self._settled_at] if now < self._settled_at else [])]
        return max(0.0, min(times) - now) if times else None


def _says_programmed(gateway: Gateway) -> bool:
    """Whether the status in the cluster says that a Gateway is programmed."""
    conditions = (gateway.status or {}).get("conditions") or ()
    return (PROGRAMMED, "True") in {(item.get("type"), item.get("status")) for item in conditions}
