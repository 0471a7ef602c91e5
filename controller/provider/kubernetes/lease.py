"""Who of several control planes writes: the holder of a Lease.

The client library has a leader election. It is not used, because it keeps the lease when it stops, so that a rollout
waits for its end, measures with the clock of the wall, and has no limit of time for its calls: a leader whose call
hangs believes in its lease after another has taken it.

The lease is judged by when its record was last seen to change, on the clock of this process: clocks of different
machines are never compared.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controller.errors import ApiConflict, ApiError, ApiMissing
from controller.kube import Api, Json

log = logging.getLogger(__name__)

_RELEASE: Final = 2.0
"""Seconds that releasing may take. The process is about to end."""


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds. Another takes over within `duration` + `retry` + one call after the leader died."""

    duration: float = 12.0
    """How long a lease is respected that is not renewed."""
    trust: float = 8.0
    """How long a leader believes in its lease after it began to renew it. The rest is for writes that are under way."""
    retry: float = 2.0
    """Between two looks, and between two renewals."""
    call: float = 3.0
    """Limit of one call."""


class Leadership:
    """Takes a Lease when it is free, and keeps it.

    on_change: is told when this process becomes the leader, or ceases to be it.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None] = lambda leads: None,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._on_change = on_change
        self._times = times or LeaseTimes()
        self._clock = clock
        self._trusted_until = 0.0
        self._leads = False
        """What was told last."""
        self._record: Json = {}
        self._seen_at = 0.0
        """When the record was last seen to change."""
        self._problem = ""

    @property
    def is_leader(self) -> bool:
        """Whether this process may write at this moment, whatever it is busy with."""
        return self._clock() < self._trusted_until

    async def run(self) -> None:
        """Takes and keeps the lease, until it is cancelled; then lets it go, so that another has it in seconds."""
        try:
            while True:
                await self._turn()
                self._tell()
                await asyncio.sleep(self._pause())
                self._tell()
        finally:
            led, self._trusted_until = self.is_leader, 0.0
            self._tell()
            if led:
                await self._release()

    def _pause(self) -> float:
        """Until the next turn, or until the lease is not to be believed in any more."""
        remaining = self._trusted_until - self._clock()
        return min(self._times.retry, remaining) if remaining > 0 else self._times.retry

    async def _turn(self) -> None:
        """One look at the lease, and a try to take or renew it."""
        began = self._clock()
        try:
            lease = await self._get()
            if lease is None:
                await self._call("POST", self._path, {"metadata": {"name": self._name}, "spec": self._spec({})})
            elif self._is_free(lease):
                await self._call("PUT", f"{self._path}/{self._name}", {**lease, "spec": self._spec(lease["spec"])})
            else:
                self._trusted_until = 0.0  # another has it, so it ran out
                return
        except ApiConflict:
            return  # another was faster, or the object changed: the next look tells
        except ApiError as problem:
            self._note(str(problem))
            return
        self._note("")
        self._trusted_until = began + self._times.trust

    async def _get(self) -> Json | None:
        try:
            lease = await self._call("GET", f"{self._path}/{self._name}")
        except ApiMissing:
            return None
        lease.setdefault("spec", {})
        return lease

    async def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        typed = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **body} if body else None
        return await self._api.request(method, path, typed, timeout=self._times.call)

    def _is_free(self, lease: Json) -> bool:
        """Whether the lease is ours, nobody's, or was not renewed for its duration."""
        spec = lease["spec"]
        if spec != self._record:
            self._record, self._seen_at = spec, self._clock()
        holder = spec.get("holderIdentity") or ""
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        return holder in ("", self._identity) or self._clock() - self._seen_at >= duration

    def _spec(self, before: Json) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine else 1),
        }

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(_RELEASE):
                lease = await self._get()
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    spec = {**lease["spec"], "holderIdentity": ""}
                    await self._call("PUT", f"{self._path}/{self._name}", {**lease, "spec": spec})
        except (ApiError, TimeoutError) as problem:
            log.warning("lease was not released, it runs out", extra={"lease": self._name, "problem": str(problem)})

    def _tell(self) -> None:
        leads = self.is_leader
        if leads != self._leads:
            self._leads = leads
            log.info("leads" if leads else "leads no longer", extra={"lease": self._name, "identity": self._identity})
            self._on_change(leads)

    def _note(self, problem: str) -> None:
        """Logs a problem when it begins."""
        if problem and not self._problem:
            log.warning("lease cannot be read or written", extra={"lease": self._name, "problem": problem})
        self._problem = problem
