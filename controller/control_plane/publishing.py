"""What the instances of each Gateway are to serve, made of the newest snapshot and of what they refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from controller.bundle import Bundle
from controller.control_plane.closed_ports import ClosedPorts
from controller.dataplane.instances import InstanceReport
from controller.dataplane.server import BundleServer
from controller.errors import NginxRefused
from controller.plugins.catalogue import BUILT_IN, Catalogue
from controller.reconcile import bundle_of_gateway
from controller.refused import Refused
from controller.render.files import RenderSettings, differs_in_endpoints_only
from controller.render.memory import Memory
from controller.resources.meta import Key
from controller.resources.parameters import GatewayParametersSpec
from controller.resources.snapshot import Snapshot
from controller.settings import large_requests_in
from controller.topology.parameters import memory, workers
from controller.topology.refusals import Refusals
from controller.topology.types import GatewayState, Topology

_ENDPOINTS_DELAY: Final = 5.0
"""Seconds for which a reload waits that only gives endpoints their kept connections."""
_WORKER_CONNECTIONS: Final = 16384
_MEMORY: Final = 4 * 1024**3
"""Bytes of a container without a limit: what its node has is not known here."""


@dataclass
class _Published:
    """What the instances of one Gateway were told last."""

    bundle: Bundle
    snapshot: Snapshot
    """Of which the bundle was made."""
    refused: Refused
    closed: ClosedPorts
    memory: Memory
    parameters: GatewayParametersSpec
    pools: str
    """Etag of the pools that were told last, which may be newer than those of the bundle."""
    due: float | None = None
    """When the files follow of which only the pools were told."""


@dataclass
class Publishing:
    """Publishes bundles of Gateways. Keeps what their instances refused, until the resources change."""

    server: BundleServer
    clock: Callable[[], float]
    catalogue: Catalogue = BUILT_IN
    endpoints_delay: float = _ENDPOINTS_DELAY
    _published: dict[Key, _Published] = field(default_factory=dict, init=False)

    def publish(self, topology: Topology, snapshot: Snapshot) -> bool:
        """Has every Gateway served as the snapshot says, and forgets those that are gone.

        One of which nothing can be served has a bundle as well, without anything: what it had may hold a key that it
        may not have any more, and each new pod would be given it. One that is not accepted serves what its listeners
        say by themselves, in the pods that it has from before.

        Returns whether instances are told something else than before.
        """
        news = [self._publish(gateway, topology, snapshot) for gateway in topology.gateways]
        present = {gateway.key for gateway in topology.gateways}
        for key in [key for key in self._published if key not in present]:
            del self._published[key]
            self.server.withdraw(key.path)
        return any(news)

    def learn(self, topology: Topology) -> bool:
        """Takes out what instances refuse of what they were told last, and brings back ports whose pods are gone.

        Whether another bundle was published for it.
        """
        learned = False
        for gateway in topology.gateways:
            known = self._published.get(gateway.key)
            if known is None:
                continue
            reports = self.server.reports(gateway.key.path)
            if self._learn(known, reports) or self._to_try(gateway, known):
                self._publish(gateway, topology, known.snapshot)
                learned = True
        return learned

    def version(self, gateway: Key) -> str:
        """The newest version of a Gateway; empty when it has none."""
        known = self._published.get(gateway)
        return known.bundle.version if known else ""

    @property
    def due(self) -> float | None:
        """When `publish` has something to do that needs no change; None when nothing waits."""
        times = (due for each in self._published.values() for due in (each.due, each.closed.due))
        return min((due for due in times if due is not None), default=None)

    def refusals(self, topology: Topology) -> Refusals:
        """What the instances of all Gateways refuse. A port that one Gateway cannot open is none of the others'."""
        routes: dict[Key, str] = {}
        listeners: dict[tuple[Key, str], str] = {}
        for gateway in topology.gateways:
            known = self._published.get(gateway.key)
            if known is None:
                continue
            found = known.refused.refusals()
            routes |= found.routes
            listeners |= found.listeners
            listeners |= {
                (listener.owner, listener.name): found.ports[listener.opening]
                for listener in gateway.listeners
                if listener.opening in found.ports
            }
        return Refusals(routes, listeners, {})

    def _learn(self, known: _Published, reports: Sequence[InstanceReport]) -> bool:
        """Whether instances refuse something of their newest version that can be taken out."""
        # Instances refuse the same in the same words.
        refusals: dict[str, tuple[NginxRefused, set[str]]] = {}
        for said in reports:
            if said.report.refusal is not None and said.report.version == known.bundle.version:
                refusals.setdefault(str(said.report.refusal), (said.report.refusal, set()))[1].add(said.uid)
        learned = False
        for refusal, pods in refusals.values():
            before = set(known.refused.ports)
            learned |= known.refused.learn(refusal, bundle=known.bundle, snapshot=known.snapshot)
            for opening in known.refused.ports.keys() - before:
                known.closed.note(opening, pods=pods, now=self.clock())
        return learned

    def _to_try(self, gateway: GatewayState, known: _Published) -> bool:
        """Forgets ports that are worth another try. Whether there are any."""
        wanted = {listener.opening for listener in gateway.listeners}
        present = {said.uid for said in self.server.reports(gateway.key.path)}
        over = known.closed.to_try(wanted=wanted, present=present, now=self.clock())
        for opening in over:
            known.refused.ports.pop(opening, None)
        return bool(over)

    def _publish(self, gateway: GatewayState, topology: Topology, snapshot: Snapshot) -> bool:
        known = self._published.get(gateway.key)
        refused = known.refused if known else Refused()
        refused.forget_changed(snapshot)
        if known is not None:
            self._to_try(gateway, known)
        closed = known.closed if known else ClosedPorts()
        memory = known.memory if known else Memory()
        parameters = known.parameters if known and gateway.would_serve else gateway.data_plane.parameters
        topology = _with_what_remains(topology, gateway, parameters=parameters)
        settings = _settings(parameters)
        bundle = bundle_of_gateway(topology, refused.refusals(), gateway=gateway.key, settings=settings, memory=memory)
        now = self.clock()
        if known is not None and differs_in_endpoints_only(known.bundle, bundle):
            due = now + self.endpoints_delay if known.due is None else known.due
            if now < due and known.bundle.version != bundle.version:
                # The picker follows them at once, without a reload.
                self.server.publish_pools(gateway.key.path, bundle.pools)
                known.due = due
                is_other = known.pools != bundle.pools.etag
                known.pools = bundle.pools.etag
                return is_other
        self._published[gateway.key] = _Published(
            bundle, snapshot, refused, closed, memory, parameters, pools=bundle.pools.etag
        )
        self.server.publish(gateway.key.path, bundle)
        return known is None or (known.bundle.version, known.pools) != (bundle.version, bundle.pools.etag)


def _with_what_remains(topology: Topology, gateway: GatewayState, *, parameters: GatewayParametersSpec) -> Topology:
    """With the listeners of a Gateway that is not accepted as if it were.

    Its pods are those of `parameters`: they stay as they are until it is accepted again.
    """
    if not gateway.would_serve:
        return topology
    data_plane = replace(gateway.data_plane, parameters=parameters)
    kept = replace(gateway, listeners=gateway.would_serve, serves=True, data_plane=data_plane)
    gateways = (kept if item.key == gateway.key else item for item in topology.gateways)
    return replace(topology, gateways=tuple(gateways))


def _settings(parameters: GatewayParametersSpec) -> RenderSettings:
    """What rendered files take from the parameters of a Gateway."""
    nginx = parameters.nginx
    connections = nginx.worker_connections if nginx and nginx.worker_connections else _WORKER_CONNECTIONS
    return RenderSettings(
        listen_addresses=("0.0.0.0",),
        worker_processes=workers(parameters),
        worker_connections=connections,
        max_large_requests=large_requests_in(memory(parameters) or _MEMORY),
    )
