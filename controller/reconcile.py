"""The loop: newest snapshot in, newest version live, and what became of it out.

Everything between is computed anew from the snapshot each time. What is remembered here is only what nginx refused, and
that only until the resource changes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from controller.bundle import Bundle
from controller.dataplane.base import DataPlane, Report
from controller.errors import InfergateError
from controller.ir.streams import Opening
from controller.plugins.catalogue import BUILT_IN, Catalogue
from controller.pools import Pools, pools_of
from controller.provider.base import Change
from controller.refused import Refused
from controller.render import memory as render_memory
from controller.render.files import RenderSettings, differs_in_endpoints_only, opening_of, render
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology import memory as topology_memory
from controller.topology.build import build
from controller.topology.refusals import Refusals, without
from controller.topology.sharing import shared
from controller.topology.types import Topology
from controller.translate.build import translate

log = logging.getLogger(__name__)

_TRIES: Final = 32
"""Refused fragments that are taken out, one after the other, before a snapshot is given up."""
_RETRY: Final = 10.0
"""Seconds after which a port that could not be opened is tried again, or a data plane that failed."""
_CANNOT_OPEN: Final = "the port is in use by another program, may not be opened, or has an address of another machine"
"""What is said of a port that was not given to nginx, which would have told which of them."""
_ENDPOINTS_DELAY: Final = 5.0
"""Seconds for which a reload waits that only gives endpoints their kept connections."""


def topology_of(
    snapshot: Snapshot,
    *,
    catalogue: Catalogue = BUILT_IN,
    system_authorities: bytes | None = None,
    memory: topology_memory.Memory | None = None,
) -> Topology:
    """The topology of a snapshot whose Gateways share one data plane.

    `catalogue` has the picker's plugins, `system_authorities` the certificates in PEM that this machine trusts, and
    `memory` is that of the topologies before.
    """
    built = build(
        snapshot,
        controller_name=CONTROLLER_NAME,
        now=datetime.now(UTC),
        catalogue=catalogue,
        system_authorities=system_authorities,
        memory=memory,
    )
    return shared(built, snapshot=snapshot)


def bundle_of(
    topology: Topology,
    refusals: Refusals,
    *,
    name: str,
    settings: RenderSettings,
    memory: render_memory.Memory | None = None,
) -> Bundle:
    """The bundle of a data plane that all Gateways share, without what nginx refused."""
    gateways = frozenset(gateway.key for gateway in topology.gateways)
    served = without(topology, refusals) if refusals else topology
    return render(translate(served, name=name, gateways=gateways), settings, memory=memory)


def bundle_of_gateway(
    topology: Topology,
    refusals: Refusals,
    *,
    gateway: Key,
    settings: RenderSettings,
    memory: render_memory.Memory | None = None,
) -> Bundle:
    """The bundle of a Gateway that has a data plane of its own, without what nginx refused."""
    served = without(topology, refusals) if refusals else topology
    return render(translate(served, name=gateway.path, gateways=frozenset({gateway})), settings, memory=memory)


@dataclass(frozen=True)
class State:
    """What the loop knows after a turn."""

    snapshot: Snapshot
    topology: Topology
    """As the resources say, before anything that nginx refused was taken out."""
    refusals: Refusals
    serving: bool | None
    """Whether the newest version is served; None when nobody has tried."""
    problem: str = ""
    """Why it is not served."""
    addresses: tuple[str, ...] = ()
    """Where clients reach the Gateways."""


@dataclass
class Reconciler:
    """Brings a data plane that all Gateways share to what the newest snapshot says."""

    data_plane: DataPlane
    settings: RenderSettings
    name: str = "local"
    catalogue: Catalogue = BUILT_IN
    """Plugins that the picker has."""
    system_authorities: bytes | None = None
    """Certificates in PEM that this machine trusts; None without any."""
    on_state: Callable[[State], None] = lambda state: None
    """Called after each turn."""
    endpoints_delay: float = _ENDPOINTS_DELAY
    retry: float = _RETRY
    can_open: Callable[[Opening], bool] = lambda opening: True
    """Whether a port can be opened that is not open yet. nginx tries for three seconds before it says so."""
    _live: Bundle | None = field(default=None, init=False)
    _refused: Refused = field(default_factory=Refused, init=False)
    _built: topology_memory.Memory = field(default_factory=topology_memory.Memory, init=False)
    _rendered: render_memory.Memory = field(default_factory=render_memory.Memory, init=False)
    _due: float | None = field(default=None, init=False)
    """Loop time of the next turn that needs no change."""

    async def run(self, snapshots: AsyncIterator[tuple[Snapshot, Change]]) -> None:
        """Follows snapshots until they end."""
        newest: Snapshot | None = None
        pending = asyncio.ensure_future(anext(snapshots, None))
        try:
            while True:
                await asyncio.wait({pending}, timeout=self._patience())
                if pending.done():
                    item = pending.result()
                    if item is None:
                        return
                    pending = asyncio.ensure_future(anext(snapshots, None))
                    newest, change = item
                    await self._persist(newest, change)
                elif newest is not None:
                    self._due = None
                    await self._persist(newest, None)
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

    async def _persist(self, snapshot: Snapshot, change: Change | None) -> None:
        """A turn. Once something is live, trouble with the data plane ends nothing: it is tried again."""
        try:
            await self.turn(snapshot, change)
        except InfergateError as problem:
            if self._live is None:
                raise
            log.error("the data plane is in trouble and is tried again", extra={"problem": str(problem)})
            self._wake_within(self.retry)

    async def turn(self, snapshot: Snapshot, change: Change | None) -> None:
        """Brings the data plane to a snapshot. `change` says why there is one; None: nothing changed since the last."""
        topology = topology_of(
            snapshot, catalogue=self.catalogue, system_authorities=self.system_authorities, memory=self._built
        )
        self._refused.forget_changed(snapshot)
        self._look_at_ports(topology)
        refusals = self._refused.refusals()
        bundle = bundle_of(topology, refusals, name=self.name, settings=self.settings, memory=self._rendered)
        report: Report | None
        pause = self._pause(bundle)
        if pause:
            await self.data_plane.apply_pools(_with_pools_of(self._live, bundle))
            report = None
            log.warning("reload waits for streams of earlier versions to end", extra={"seconds": round(pause, 1)})
            self._wake_within(pause)
        elif change is not None and self._may_wait(bundle):
            await self.data_plane.apply_pools(bundle.pools)
            report = None
            if self._live is not None and self._live.version == bundle.version:
                log_change(change, "nothing to reload")
            else:
                self._wake_within(self.endpoints_delay)
                log_change(change, "endpoints live")
        else:
            report, bundle, refusals = await self._apply(topology, bundle, snapshot)
            if report.serving:
                if self._live is None or self._live.version != bundle.version or change is not None:
                    log_change(change, "live", version=bundle.version)
                self._live = bundle
        if self._refused.ports:
            self._wake_within(self.retry)
        self.on_state(
            State(
                snapshot=snapshot,
                topology=topology,
                refusals=refusals,
                serving=None if pause else report.serving if report else True,
                problem=str(report.refusal) if report and report.refusal else "",
                addresses=tuple(address.strip("[]") for address in self.settings.listen_addresses),
            )
        )

    async def _apply(self, topology: Topology, bundle: Bundle, snapshot: Snapshot) -> tuple[Report, Bundle, Refusals]:
        """Applies a bundle; takes out what nginx refuses, one resource at a time, until it takes the rest."""
        report = await self.data_plane.apply(bundle)
        for _ in range(_TRIES):
            if report.refusal is None or not self._refused.learn(report.refusal, bundle=bundle, snapshot=snapshot):
                break
            bundle = bundle_of(
                topology, self._refused.refusals(), name=self.name, settings=self.settings, memory=self._rendered
            )
            report = await self.data_plane.apply(bundle)
        if report.refusal is not None:
            log.error("no version could be applied", extra={"problem": str(report.refusal)})
        return report, bundle, self._refused.refusals()

    def _look_at_ports(self, topology: Topology) -> None:
        """Learns which ports can be opened, before nginx spends seconds on one that cannot."""
        wanted = {
            listener.opening for gateway in topology.gateways for listener in gateway.listeners if listener.serves
        }
        known = self._refused.ports
        self._refused.ports = {
            opening: known.get(opening, _CANNOT_OPEN)
            for opening in sorted(wanted - _open_ports(self._live))
            if not self.can_open(opening)
        }

    def _pause(self, bundle: Bundle) -> float:
        """Seconds for which a version that needs a reload waits."""
        if self._live is None or self._live.version == bundle.version or self._may_wait(bundle):
            return 0.0
        return self.data_plane.reload_pause

    def _may_wait(self, bundle: Bundle) -> bool:
        """Whether the picker alone makes a bundle's difference to what is live."""
        return self._live is not None and differs_in_endpoints_only(self._live, bundle)

    def _wake_within(self, seconds: float) -> None:
        due = asyncio.get_running_loop().time() + seconds
        self._due = due if self._due is None else min(self._due, due)

    def _patience(self) -> float | None:
        return None if self._due is None else max(0.0, self._due - asyncio.get_running_loop().time())


def _with_pools_of(live: Bundle | None, bundle: Bundle) -> Pools:
    """The pools of a bundle, and those that only the live one has."""
    names = {pool.name for pool in bundle.pools.pools}
    kept = tuple(pool for pool in live.pools.pools if pool.name not in names) if live else ()
    return pools_of((*bundle.pools.pools, *kept)) if kept else bundle.pools


def _open_ports(live: Bundle | None) -> set[Opening]:
    """Ports that nginx has open for a bundle."""
    openings = (opening_of(item.path) for item in live.files) if live else ()
    return {opening for opening in openings if opening is not None}


def log_change(change: Change | None, message: str, **details: object) -> None:
    """Says that a change has come so far, how long it took, and what is different."""
    if change is None:
        log.info(message, extra={"reason": "deferred", **details})
        return
    now = asyncio.get_running_loop().time()
    details["milliseconds"] = round((now - change.detected_at) * 1000, 1)
    log.info(message, extra={"files": ", ".join(change.sources), **details})
    for description in change.descriptions:
        log.info("changed: %s", description)
