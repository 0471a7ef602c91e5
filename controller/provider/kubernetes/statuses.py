"""Statuses to the API server: what is wanted is compared with what the cluster has, and written until it is so."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.backoff import Backoff
from controller.errors import ApiConflict, ApiError, ApiMissing, ApiRefused, ApiUnreachable
from controller.kube import APPLY, MERGE, Api, Json
from controller.provider.kubernetes.outage import Outage
from controller.provider.kubernetes.store import Held
from controller.resources.meta import Key
from controller.status.apply import gone, is_shared, owned, whole
from controller.status.merge import merge
from controller.status.notices import Notice, notices
from controller.status.types import StatusUpdate

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "infergate"

_CONCURRENCY: Final = 16
"""Writes at once: some 300 a second to an API server that takes 50 ms for one."""
_FIRST: Final = 0.1
_LONGEST: Final = 60.0
"""Seconds between tries of one status."""
_TIMEOUT: Final = 10.0
"""Seconds for one write."""


async def _at_once() -> None:
    pass


@dataclass(frozen=True)
class _Written:
    """What the API server answered to the last write of an object."""

    uid: str
    version: str
    generation: int
    status: Json
    older: frozenset[str]
    """Versions that were there before. The watch may still tell them."""


class StatusWriter:
    """Keeps the statuses of a cluster as they are wanted, one after the other for each object.

    A status that cannot be written is tried again with growing delays and holds up no other. held: the newest form of
    an object. is_leader: asked before each write. outage: the provider's, which notices when the API server is back.
    on_notice: is told what turned bad with a write. calm: waits for a moment in which the API server has less to do.
    """

    def __init__(
        self,
        api: Api,
        *,
        held: Callable[[Key], Held | None],
        controller_name: str,
        is_leader: Callable[[], bool],
        outage: Outage,
        on_notice: Callable[[Notice], None] = lambda notice: None,
        calm: Callable[[], Awaitable[None]] = _at_once,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        concurrency: int = _CONCURRENCY,
    ) -> None:
        self._api = api
        self._held = held
        self._controller_name = controller_name
        self._is_leader = is_leader
        self._on_notice = on_notice
        self._calm = calm
        self._now = now
        self._concurrency = concurrency
        self._outage = outage
        self._wanted: dict[Key, StatusUpdate] = {}
        self._queue: asyncio.Queue[Key] = asyncio.Queue()  # bounded by the number of objects: each is in it once
        self._queued: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._backoffs: dict[Key, Backoff] = {}
        self._written: dict[Key, _Written] = {}
        self._overwrite: set[Key] = set()
        """Objects where applying left something that another field manager owns."""
        self._futile: dict[Key, tuple[StatusUpdate, str]] = {}
        """What was written, and the version in which it did not come out as written."""

    def want(self, updates: Sequence[StatusUpdate]) -> None:
        """Makes these the statuses of all resources of ours. Those that were ours lose our entries."""
        keys = {update.key for update in updates}
        withdrawn = gone(self._wanted.values(), now=keys)
        before, self._wanted = self._wanted, {item.key: item for item in (*updates, *withdrawn)}
        for key, update in self._wanted.items():
            if (known := before.get(key)) is not update and known != update:
                self.look_at(key)

    def look_at(self, key: Key) -> None:
        """Compares one object soon: it changed."""
        if key not in self._wanted:
            return
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._queue.put_nowait(key)

    def look_at_all(self) -> None:
        """Compares every object soon: whoever becomes the leader does not know what the last one wrote."""
        for key in self._wanted:
            self.look_at(key)

    async def run(self) -> None:
        """Writes, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            await self._calm()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await self._attempt(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.look_at(key)

    async def _attempt(self, key: Key) -> None:
        """Settles one object, or sees to it that it is tried again."""
        try:
            await self._settle(key)
        except ApiMissing:  # deleted meanwhile, which the watch will tell
            self._backoffs.pop(key, None)
        except ApiConflict as problem:
            log.debug("status was changed by another", extra={"resource": str(key), "problem": str(problem)})
            self._retry(key)
        except ApiUnreachable as problem:
            self._outage.began(problem)
            if await self._outage.over(within=self._backoff(key).delay()):
                self._backoffs.pop(key, None)
            self._again.add(key)
        except ApiError as problem:
            if key not in self._backoffs:
                log.warning("status cannot be written", extra={"resource": str(key), "problem": str(problem)})
            self._retry(key, at_least=problem.wait if isinstance(problem, ApiRefused) else 0.0)
        else:
            self._backoffs.pop(key, None)

    def _retry(self, key: Key, *, at_least: float = 0.0) -> None:
        delay = self._backoff(key).delay(at_least=at_least)
        asyncio.get_running_loop().call_later(delay, self.look_at, key)

    def _backoff(self, key: Key) -> Backoff:
        return self._backoffs.setdefault(key, Backoff(first=_FIRST, longest=_LONGEST))

    async def _settle(self, key: Key) -> None:
        update, held = self._wanted.get(key), self._held(key)
        if update is None or not self._is_leader():
            return
        if held is None:
            self._forget(key)
            return
        version, generation, before = self._newest(key, held)
        status = self._merged(update, before, latest=generation)
        if status == (before or {}):
            if not any(update.status.values()):
                self._wanted.pop(key, None)  # withdrawn
            return
        if self._futile.get(key) == (update, version):
            return
        overwrites = is_shared(update) or key in self._overwrite
        answer = await self._write(key, held, update, status, version=version if overwrites else "")
        self._outage.ended()
        self._note_answer(key, held, update, answer, overwrote=overwrites)
        for notice in notices(update, before, controller_name=self._controller_name):
            self._on_notice(notice)

    def _merged(self, update: StatusUpdate, old: Json | None, *, latest: int) -> Json:
        return merge(update, old, now=self._now(), controller_name=self._controller_name, latest=latest)

    def _newest(self, key: Key, held: Held) -> tuple[str, int, Json | None]:
        """(version, generation, status) of an object: what was written last, until the watch has seen more."""
        written = self._written.get(key)
        if written is None:
            return held.version, held.generation, held.status
        if written.uid == held.uid and held.version in written.older:
            return written.version, written.generation, written.status
        del self._written[key]
        return held.version, held.generation, held.status

    async def _write(self, key: Key, held: Held, update: StatusUpdate, status: Json, *, version: str) -> Json:
        """Applies our fields, or writes them over what there was in `version`."""
        metadata: Json = {"name": key.name, "uid": held.uid}
        if key.namespace:
            metadata["namespace"] = key.namespace
        body: Json = {"apiVersion": held.api_version, "kind": key.kind, "metadata": metadata}
        query: dict[str, str | int] = {"fieldManager": FIELD_MANAGER}
        if version:
            metadata["resourceVersion"] = version
            body["status"] = whole(update, status)
        else:
            body["status"] = owned(update, status)
            query["force"] = "true"
        return await self._api.request(
            "PATCH",
            f"{held.path}/status",
            body,
            query=query,
            patch=MERGE if version else APPLY,
            timeout=_TIMEOUT,
        )

    def _note_answer(self, key: Key, held: Held, update: StatusUpdate, answer: Json, *, overwrote: bool) -> None:
        metadata, status = answer["metadata"], answer.get("status") or {}
        version, generation = str(metadata["resourceVersion"]), int(metadata.get("generation") or 0)
        before = self._written.get(key)
        older = before.older | {before.version} if before is not None and before.uid == held.uid else frozenset()
        self._written[key] = _Written(held.uid, version, generation, status, older | {held.version})
        self._overwrite.discard(key)
        self._futile.pop(key, None)
        if self._merged(update, status, latest=generation) == status:
            return
        if overwrote:
            log.warning("status is not as it was written", extra={"resource": str(key)})
            self._futile[key] = (update, version)
        else:
            self._overwrite.add(key)
            self._again.add(key)

    def _forget(self, key: Key) -> None:
        self._written.pop(key, None)
        self._overwrite.discard(key)
        self._futile.pop(key, None)
