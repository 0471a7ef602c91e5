"""One list and one watch, kept up for as long as the process lives."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from controller.backoff import Backoff
from controller.errors import ApiDenied, ApiExpired, ApiMissing, ApiRefused, ApiUnreachable
from controller.kube import Api
from controller.provider.kubernetes.outage import Outage
from controller.provider.kubernetes.served import Slot
from controller.provider.kubernetes.store import Difference, Store
from controller.resources.meta import Key

log = logging.getLogger(__name__)

_FIRST: Final = 0.2
_LONGEST: Final = 15.0
"""Seconds between tries: an API server that is back after hours is noticed soon, and is not stormed."""
_REFUSALS: Final = 4
"""Refusals in a row that are believed. An API server that just started refuses what it allows a second later, when it
has read the roles."""
_WATCH: Final = 240.0
"""Seconds of one watch. Its end bounds how long a connection is believed that died without a word."""
_BREATH: Final = 50
"""Objects that are parsed before others get a turn, some five milliseconds."""


class Reflector:
    """Fills one slot of a store. What was listed stays while the API server is away."""

    def __init__(
        self,
        api: Api,
        *,
        slot: Slot,
        path: str,
        store: Store,
        outage: Outage,
        on_difference: Callable[[Key, Difference], None],
        on_listed: Callable[[], None],
        watch_seconds: float = _WATCH,
        backoff: Backoff | None = None,
    ) -> None:
        self.slot = slot
        self.path = path
        self.is_listed = False
        """Whether everything was read once, or may not be read."""
        self.is_missing = False
        """Whether the last answer was that there is no such kind."""
        self._api = api
        self._store = store
        self._outage = outage
        self._on_difference = on_difference
        self._on_listed = on_listed
        self._watch_seconds = watch_seconds
        self._backoff = backoff or Backoff(first=_FIRST, longest=_LONGEST)
        self._version = ""
        """resourceVersion from which the next watch goes on; empty when there must be a list first."""
        self._refusals = 0

    async def run(self) -> None:
        """Lists and watches, until it is cancelled."""
        while True:
            wait = 0.0
            try:
                await self._turn()
            except ApiExpired as problem:
                if self._version:
                    log.info("watch expired, listing again", extra={"resources": str(self.slot)})
                    self._backoff.reset()  # it answers, however long it was away
                self._version = ""
                wait = self._backoff.delay(at_least=problem.wait)
            except ApiMissing:  # its definition is being removed or installed: discovery will tell which
                self.is_missing = True
                wait = self._backoff.delay()
            except ApiRefused as problem:
                self._note_refusal(problem)
                wait = self._backoff.delay(at_least=problem.wait)
            except ApiUnreachable as problem:
                self._outage.began(problem)
                if await self._outage.over(within=self._backoff.delay()):
                    self._backoff.reset()
            if wait:
                await asyncio.sleep(wait)

    async def _turn(self) -> None:
        """One list if it is needed, and one watch."""
        if not self._version:
            self._version = await self._list()
            self._succeeded()
        began = asyncio.get_running_loop().time()
        await self._watch()
        if asyncio.get_running_loop().time() - began < 1.0:  # ended at once, as by a proxy in between
            await asyncio.sleep(self._backoff.delay())
        else:
            self._backoff.reset()

    async def _list(self) -> str:
        seen: set[Key] = set()
        version = ""
        async for page in self._api.pages(self.path, query=self.slot.query):
            for number, document in enumerate(page.items):
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
                key, difference = self._store.put(self.slot, document, path=self.path)
                seen.add(key)
                self._tell(key, difference)
            version = page.version
        for key in self._store.retain(self.slot, seen):
            self._tell(key, Difference.CONTENT)
        return version

    async def _watch(self) -> None:
        seconds = self._watch_seconds * random.uniform(0.8, 1.2)  # so that many watches do not end at once
        async for event in self._api.watch(self.path, version=self._version, seconds=seconds, query=self.slot.query):
            self._backoff.reset()
            self.is_missing = False
            if event.type in ("ADDED", "MODIFIED"):
                self._tell(*self._store.put(self.slot, event.object, path=self.path))
            elif event.type == "DELETED":
                self._tell(*self._store.remove(self.slot, event.object))
            self._version = str(event.object["metadata"]["resourceVersion"])

    def _tell(self, key: Key, difference: Difference) -> None:
        if difference is not Difference.NOTHING:
            self._on_difference(key, difference)

    def _succeeded(self) -> None:
        self.is_missing = False
        self._outage.ended()
        self._refusals = 0
        self._backoff.reset()
        if not self.is_listed:
            self.is_listed = True
            self._on_listed()

    def _note_refusal(self, problem: ApiRefused) -> None:
        """Goes on without a kind that may not be read. It is tried again, because roles change."""
        self._refusals += 1
        if self._refusals > 1:  # a server whose state was restored does not know the version from which to watch
            self._version = ""
        if self._refusals != _REFUSALS:
            return
        log.warning("resources cannot be read", extra={"resources": str(self.slot), "problem": str(problem)})
        if isinstance(problem, ApiDenied) and not self.is_listed:
            self.is_listed = True
            self._on_listed()
