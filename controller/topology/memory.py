"""What a build leaves to the next one: routes that are the same, in a world that is the same, are not resolved again.

With 1,000 routes they are most of the work, and most changes of a cluster are to one of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from controller.remembered import Remembered
from controller.resources.grpc_route import RequestRoute
from controller.resources.meta import Key
from controller.resources.snapshot import Snapshot
from controller.topology.attachment import Parent
from controller.topology.backends import Backends
from controller.topology.types import RouteState

ResolvedRoute = tuple[RouteState, tuple[Key, ...]]
"""A route, and the InferencePools that it refers to."""


@dataclass(frozen=True, eq=False)
class World:
    """What routes are resolved against."""

    backends: Backends
    parents: Mapping[Key, Parent]
    """Gateways and their ListenerSets."""


@dataclass
class Memory:
    """Of one sequence of builds, with the same controller name and catalogue."""

    routes: Remembered[ResolvedRoute | None] = field(default_factory=Remembered)
    _known: tuple[object, ...] = ()
    _world: World | None = None

    def world(self, snapshot: Snapshot, around: tuple[object, ...], make: Callable[[], World]) -> World:
        """The world of the build before, if nothing but routes is different; else what `make` gives.

        `around` is what it is made of beside resources. Gateways are: they differ when a certificate expires.
        """
        others: list[tuple[object, ...]] = []
        namespaces: set[str] = set()
        for item in snapshot.resources:
            if isinstance(item, RequestRoute):
                namespaces.add(item.metadata.namespace)
            else:
                others.append(item.content)
        known = (others, around, namespaces)
        if self._world is None or known != self._known:
            self._world = make()
        self._known = known
        self.routes.turn()
        return self._world
