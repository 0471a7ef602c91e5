"""A gateway each of whose pools is picked for by a picker of our own, which it asks by ext_proc.

What a test applies for the picker beside NGINX is read as the control plane reads it, and what comes of it for a pool,
its endpoints, policies, objectives and models, is what the pool's own picker gets.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from controller.agent import state as places
from controller.agent.nginx import Nginx
from controller.plugins.installed import installed
from controller.pools import Pool
from controller.provider.file import read
from controller.reconcile import State, topology_of
from controller.translate.build import translate
from tests.nginx.both_ends.pickers import RunningPicker
from tests.nginx.gateway import Gateway, run_gateway
from tests.nginx.resources import Json, as_yaml, external


@dataclass
class BothEnds(Gateway):
    """See `Gateway`."""

    pickers: dict[str, RunningPicker] = field(default_factory=dict)
    """By pool, as `namespace/name`."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Ends them."""
    mode: str = "relayed"
    _newest: dict[str, Pool] = field(default_factory=dict)
    """What the pickers are told, by pool."""

    def write(self, name: str, *documents: Json | list[Json]) -> None:
        """See `Gateway`."""
        flat = [item for document in documents for item in (document if isinstance(document, list) else [document])]
        said = self._said / name
        if flat:
            said.parent.mkdir(exist_ok=True)
            said.write_text(as_yaml(*flat))
        else:
            said.unlink(missing_ok=True)
        super().write(name, *(self._external(item) for item in flat))

    async def live(self) -> State:
        """See `Gateway`."""
        for picker in self.pickers.values():
            if not picker.has_begun:
                await self.stack.enter_async_context(picker.running())
        # A pool without a route is none of the gateway's, and its picker's as before.
        self._newest |= {pool.name: pool for pool in self._told()}
        known = self.pickers.keys() & self._newest.keys()
        await asyncio.gather(*(self.pickers[pool].serve(self._newest[pool]) for pool in known))
        return await super().live()

    def picker_pids(self) -> tuple[int, ...]:
        """See `Gateway`."""
        pids = [picker.pid for picker in self.pickers.values()]
        return tuple(pid for pid in pids if pid is not None) if None not in pids else ()

    async def pools(self) -> Json:
        """What all pickers show, together."""
        shown = await asyncio.gather(*(picker.pools() for picker in self.pickers.values()))
        if not all(shown):
            return {}
        return {
            "inFlight": sum(item["inFlight"] for item in shown),
            "leaving": [each for item in shown for each in item["leaving"]],
            "pools": [each for item in shown for each in item["pools"]],
        }

    async def metrics(self, socket: str = places.PICKER_SOCKET) -> dict[str, float]:
        """Those of all pickers, together."""
        if socket != places.PICKER_SOCKET:
            return await super().metrics(socket)
        sums: Counter[str] = Counter()
        for lines in await asyncio.gather(*(picker.metrics() for picker in self.pickers.values())):
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#")):
                sums[name] += float(value)  # type: ignore[assignment]  # a Counter may count in parts
        return dict(sums)

    @property
    def _said(self) -> Path:
        """Directory of the resources as tests say them."""
        return self.directory.parent / "said"

    async def _is_read(self, etag: str) -> bool:
        return (await super().pools()).get("etag") == etag

    def _told(self) -> tuple[Pool, ...]:
        """What the picker beside NGINX would be told."""
        topology = topology_of(read(self._said), catalogue=installed())
        config = translate(topology, name="shadow", gateways=frozenset(item.key for item in topology.gateways))
        return config.pools

    def _external(self, item: Json) -> Json | list[Json]:
        if item["kind"] != "InferencePool" or item["spec"]["endpointPickerRef"].get("group") != "infergate.dev":
            return item
        name = item["metadata"]["name"]
        pool = f"default/{name}"
        if pool not in self.pickers:
            self.pickers[pool] = RunningPicker(self.directory.parent / f"picker-{name}")
        protocol = item["spec"].get("appProtocol", "http")
        return external(item, pickers=[self.pickers[pool].address], protocol=protocol)


@asynccontextmanager
async def run_both_ends(root: Path, nginx: Nginx, **settings: Any) -> AsyncIterator[BothEnds]:
    """A gateway with its pickers; see `run_gateway`."""
    async with (
        AsyncExitStack() as stack,
        run_gateway(root, nginx, kind=partial(BothEnds, stack=stack), **settings) as gateway,
    ):
        assert isinstance(gateway, BothEnds)
        yield gateway
