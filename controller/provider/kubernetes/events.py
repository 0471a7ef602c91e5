"""Events for what a person should notice, as `kubectl describe` shows them: few, and each once."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from controller.errors import ApiError
from controller.kube import Api, Json
from controller.provider.kubernetes.store import Held
from controller.resources.meta import Key
from controller.status.notices import Notice

log = logging.getLogger(__name__)

_QUIET: Final = 3600.0
"""Seconds for which the same is not told again. The API server keeps Events for an hour."""
_REMEMBERED: Final = 4096
_WAITING: Final = 256
"""Notices that wait to be written; when a thousand routes turn bad at once, their statuses say so."""
_LONGEST: Final = 1024
"""Characters of a note, the API server's limit."""
_TIMEOUT: Final = 5.0


class EventRecorder:
    """Writes an Event for each notice, one after the other. What cannot be written is dropped: the status says it too.

    instance: names this process. held: the newest form of an object.
    """

    def __init__(
        self,
        api: Api,
        *,
        held: Callable[[Key], Held | None],
        controller_name: str,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
        waiting: int = _WAITING,
    ) -> None:
        self._api = api
        self._held = held
        self._controller_name = controller_name
        self._instance = instance
        self._clock = clock
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._waiting: asyncio.Queue[Json] = asyncio.Queue(waiting)
        self._fails = False

    def note(self, notice: Notice) -> None:
        """Tells it soon, unless the same was told within an hour or too many wait."""
        held = self._held(notice.key)
        if held is None or self._is_known((held.uid, notice.reason, notice.message)):
            return
        try:
            self._waiting.put_nowait(self._event(notice, held))
        except asyncio.QueueFull:
            log.debug("event dropped, too many wait", extra={"resource": str(notice.key)})

    async def run(self) -> None:
        """Writes, until it is cancelled."""
        while True:
            event = await self._waiting.get()
            path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
            try:
                await self._api.request("POST", path, event, timeout=_TIMEOUT)
            except ApiError as problem:
                if not self._fails:
                    log.warning("events cannot be written", extra={"problem": str(problem)})
                self._fails = True
            else:
                self._fails = False

    def _is_known(self, what: tuple[str, str, str]) -> bool:
        now = self._clock()
        known = now - self._told.get(what, -_QUIET) < _QUIET
        if not known:
            self._told[what] = now
            self._told.move_to_end(what)
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
        return known

    def _event(self, notice: Notice, held: Held) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        digest = hashlib.sha256(f"{held.uid} {notice.reason} {notice.message} {now}".encode()).hexdigest()
        key = notice.key
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{key.name[:200].rstrip('.-')}.{digest[:16]}",
                "namespace": key.namespace or "default",  # where Events of cluster-scoped objects are looked for
            },
            "eventTime": now,
            "type": "Warning",
            "reason": notice.reason[:128],
            "action": "Reconcile",
            "note": _cut(notice.message),
            "reportingController": self._controller_name,
            "reportingInstance": self._instance[:128],
            "regarding": {
                "apiVersion": held.api_version,
                "kind": key.kind,
                "name": key.name,
                "namespace": key.namespace,
                "uid": held.uid,
            },
        }


def _cut(note: str) -> str:
    """A note within the limit, which counts bytes."""
    encoded = note.encode()
    return note if len(encoded) <= _LONGEST else encoded[: _LONGEST - 3].decode(errors="ignore") + "..."
