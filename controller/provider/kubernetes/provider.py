"""Resources from an API server."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from controller.backoff import Backoff
from controller.errors import ApiError
from controller.kube import Api
from controller.provider.base import Change
from controller.provider.changes import describe
from controller.provider.kubernetes.gather import Gather
from controller.provider.kubernetes.outage import Outage
from controller.provider.kubernetes.referred import REFERRERS, config_maps
from controller.provider.kubernetes.reflector import Reflector
from controller.provider.kubernetes.served import WATCHED, Discovery, Slot, config_map_slot
from controller.provider.kubernetes.store import Difference, Held, Store
from controller.resources.core import ConfigMap
from controller.resources.meta import Key, Resource
from controller.resources.snapshot import Snapshot

log = logging.getLogger(__name__)

T = TypeVar("T")

_DISCOVERY: Final = 2.0
"""Seconds between two looks at what is served. An answer without news is a few bytes."""
_ABSENCE: Final = 5.0
"""Seconds between two looks for an API server that is away. Everything else waits for the first that succeeds."""
_REFERRED: Final = 2.0
"""Seconds that a snapshot waits for an object that it refers to and that is not read yet."""
_NAMED: Final = 10
"""Resources that a change names."""


_REFERRING: Final = frozenset(model.__name__ for model in REFERRERS)


class KubernetesProvider:
    """Follows a cluster: its objects stay known while the API server is away, for as long as that takes.

    namespaces: those whose resources are read; empty for all. on_seen: is told each key whose object appeared, changed
    or vanished, its status included, at once and before the snapshot that holds it.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespaces: Sequence[str] = (),
        models: Sequence[type[Resource]] = WATCHED,
        on_seen: Callable[[Key], None] = lambda key: None,
        discovery_interval: float = _DISCOVERY,
        gather: Gather | None = None,
    ) -> None:
        self._api = api
        self._discovery = Discovery(api, models=models, namespaces=namespaces)
        self._namespaces = frozenset(namespaces)
        self._reads_config_maps = ConfigMap in models
        self._interval = discovery_interval
        self._on_seen = on_seen
        self._store = Store()
        self._gather = gather or Gather()
        self.outage = Outage(clock=time.monotonic)
        self._reflectors: dict[Slot, tuple[Reflector, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._changed: set[Key] = set()
        self._listed = asyncio.Event()
        self._complete = asyncio.Event()
        """Whether everything that is asked for has been read once."""
        self._is_referring_due = False

    def held(self, key: Key) -> Held | None:
        """The newest form of an object, which may be newer than the last snapshot."""
        return self._store.held(key)

    async def calm(self, *, longest: float) -> None:
        """See `Gather.calm`."""
        await self._gather.calm(longest=longest)

    async def snapshots(self) -> AsyncGenerator[tuple[Snapshot, Change], None]:
        """The first comes when every kind that is served has been listed; waits for an API server that is away."""
        started = asyncio.get_running_loop().time()
        follower = asyncio.create_task(self._follow())
        try:
            await _unless_failed(follower, self._listed.wait())
            self._changed.clear()
            current = self._store.snapshot()
            log.info("resources read", extra={"resources": len(current.resources), "kinds": len(self._reflectors)})
            yield current, Change(sources=(), descriptions=(), detected_at=started)
            while True:
                detected_at = await _unless_failed(follower, self._gather.changed())
                # An object and what it refers to often come together, and belong into one snapshot.
                with contextlib.suppress(TimeoutError):
                    await _unless_failed(follower, asyncio.wait_for(self._complete.wait(), _REFERRED))
                changed = sorted(str(key) for key in self._changed)
                if not changed:
                    continue
                self._changed.clear()
                newer = self._store.snapshot()
                lines = describe(current, newer)
                current = newer
                yield newer, Change(sources=_few(changed), descriptions=lines, detected_at=detected_at)
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _follow(self) -> None:
        """Has a reflector for each slot that is served, until it is cancelled."""
        backoff = Backoff(first=0.2, longest=_ABSENCE)
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                try:
                    paths = await self._discovery.look()
                except ApiError as problem:
                    self.outage.began(problem)
                    await asyncio.sleep(backoff.delay())
                    continue
                backoff.reset()
                self.outage.ended()
                self._adjust(paths, group=group)
                await asyncio.sleep(self._interval)

    def _adjust(self, paths: dict[Slot, str], *, group: asyncio.TaskGroup) -> None:
        for slot, (reflector, task) in list(self._reflectors.items()):
            if slot.name or paths.get(slot) == reflector.path or (slot not in paths and not _is_gone(reflector)):
                continue
            task.cancel()
            del self._reflectors[slot]
            if slot not in paths:
                log.info("kind is served no longer", extra={"resources": str(slot)})
                for key in self._store.retain(slot, ()):
                    self._note(key, Difference.CONTENT)
        for slot, path in paths.items():
            if slot not in self._reflectors:
                self._reflect(slot, path, group=group)
        self._note_listed()

    def _refer(self) -> None:
        """Has a reflector for each ConfigMap that something refers to."""
        self._is_referring_due = False
        if self._group is None or not self._reads_config_maps:
            return
        names = config_maps(self._store.of(REFERRERS))
        wanted = dict(config_map_slot(name) for name in names if not self._namespaces or name[0] in self._namespaces)
        for slot in [slot for slot in self._reflectors if slot.name and slot not in wanted]:
            _, task = self._reflectors.pop(slot)
            task.cancel()
            for key in self._store.forget(slot):
                self._note(key, Difference.CONTENT)
        for slot, path in wanted.items():
            if slot not in self._reflectors:
                self._complete.clear()
                self._reflect(slot, path, group=self._group)

    def _refer_soon(self) -> None:
        """Many objects are read at once, and each might refer to something."""
        if not self._is_referring_due:
            self._is_referring_due = True
            asyncio.get_running_loop().call_soon(self._refer)

    def _reflect(self, slot: Slot, path: str, *, group: asyncio.TaskGroup) -> None:
        reflector = Reflector(
            self._api,
            slot=slot,
            path=path,
            store=self._store,
            outage=self.outage,
            on_difference=self._note,
            on_listed=self._note_listed,
        )
        self._reflectors[slot] = (reflector, group.create_task(reflector.run()))

    def _note(self, key: Key, difference: Difference) -> None:
        if difference is Difference.CONTENT:
            if key.kind in _REFERRING:
                self._refer_soon()
            self._changed.add(key)
            if self._listed.is_set():
                self._gather.touch()
        self._on_seen(key)

    def _note_listed(self) -> None:
        if self._has_all() and not self._listed.is_set():
            self._refer()
        if self._has_all():
            self._listed.set()
            self._complete.set()

    def _has_all(self) -> bool:
        return all(reflector.is_listed for reflector, _ in self._reflectors.values())


async def _unless_failed(follower: asyncio.Task[None], awaited: Coroutine[Any, Any, T]) -> T:
    """What `awaited` gives. A fault of the follower, which never returns, comes out here instead."""
    waiting = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({waiting, follower}, return_when=asyncio.FIRST_COMPLETED)
        if follower.done():
            follower.result()
        return await waiting
    finally:
        waiting.cancel()


def _is_gone(reflector: Reflector) -> bool:
    """Whether a kind that discovery lacks is refused by its own path too.

    An API server that just started knows some kinds later than it says that it knows all.
    """
    return reflector.is_missing or not reflector.is_listed


def _few(names: Sequence[str]) -> tuple[str, ...]:
    more = len(names) - _NAMED
    return tuple(names) if more <= 0 else (*names[:_NAMED], f"{more} more")
