"""A gateway each of whose pools is picked for by a picker of our own, which it asks by ext_proc.

What the built-in picker's tests apply to it, and ask of the picker, is applied to and asked of those.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from controller.agent.nginx import Nginx
from controller.plugins.types import AppliedPolicy
from controller.reconcile import State
from tests.nginx.gateway import Gateway, run_gateway
from tests.nginx.resources import Json, picked_pool
from tests.picker.ext_proc.conftest import Served, served_picker

_SLICE_LABEL: Final = "infergate.dev/inference-pool"
_POLICY: Final = AppliedPolicy(fallbacks=2)
"""The picker beside NGINX is asked again when an endpoint fails; others name those that are next at once."""


@dataclass
class BothEnds(Gateway):
    """See `Gateway`."""

    pickers: dict[str, Served] = field(default_factory=dict)
    """By pool."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Ends them."""

    async def apply(self, name: str, *documents: Json | list[Json]) -> State:
        """See `Gateway`."""
        flat = [item for document in documents for item in (document if isinstance(document, list) else [document])]
        made: list[Json] = []
        for item in flat:
            made += await self._picked(item, among=flat) if item["kind"] == "InferencePool" else [item]
        return await super().apply(name, *made)

    async def pools(self) -> Json:
        """What all pickers show, together."""
        shown = [(await picker.admin.get("/pools")).json() for picker in self.pickers.values()]
        return {
            "inFlight": sum(item["inFlight"] for item in shown),
            "leaving": [each for item in shown for each in item["leaving"]],
            "pools": [each for item in shown for each in item["pools"]],
        }

    async def _is_read(self, etag: str) -> bool:
        return (await super().pools()).get("etag") == etag

    async def _picked(self, pool: Json, *, among: list[Json]) -> list[Json]:
        """The pool with a picker of its own, which knows its endpoints."""
        name = pool["metadata"]["name"]
        addresses = [
            f"{item['endpoints'][0]['addresses'][0]}:{item['ports'][0]['port']}"
            for item in among
            if item["metadata"].get("labels", {}).get(_SLICE_LABEL) == name
        ]
        if name not in self.pickers:
            directory = self.directory.parent / f"picker-{name}"
            directory.mkdir()
            self.pickers[name] = await self.stack.enter_async_context(served_picker(directory, ext_proc={"tls": True}))
        picker = self.pickers[name]
        await picker.serving(*addresses, policy=_POLICY)
        return picked_pool(name, pickers=[picker.address])


@asynccontextmanager
async def run_both_ends(root: Path, nginx: Nginx) -> AsyncIterator[BothEnds]:
    """A gateway with its pickers."""
    async with AsyncExitStack() as stack, run_gateway(root, nginx, kind=partial(BothEnds, stack=stack)) as gateway:
        assert isinstance(gateway, BothEnds)
        yield gateway
