"""Brings the objects of Gateways' data planes into a cluster, and keeps them as they should be.

Server-side apply with a field manager of our own: what others add (an annotation of a cloud, a scale of an autoscaler)
stays, what others change of ours is set back. A Service is never deleted here, since it would come back with another
address; everything goes with its Gateway, by its owner reference.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from controller.dataplane.manifests import Json, name_of
from controller.errors import ApiBusy, ApiMissing, ApiRefused
from controller.resources.meta import Key

FIELD_MANAGER: Final = "infergate"

_HANDING_OVER: Final = "infergate-autoscaling"
"""Holds a Deployment's replicas between us and an autoscaler. Without it they would be 1 for that moment."""
COLLECTIONS: Final = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}
DISPENSABLE: Final = ("HorizontalPodAutoscaler", "PodDisruptionBudget")
"""Kinds that some data planes have and others have not."""


class Api(Protocol):
    """An API server. A PATCH is a server-side apply.

    Raises ApiMissing for what does not exist, ApiRefused for what is refused, its ApiBusy for what is refused for
    the moment, ApiUnreachable.
    """

    async def request(
        self, method: str, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None
    ) -> Json: ...


@dataclass(frozen=True)
class Provisioned:
    """What became of a Gateway's objects."""

    problems: tuple[str, ...] = ()
    """What could not be done and why, in words for a condition; each names its object, and the field that is meant."""
    service: Json | None = None
    """The Service as it is, with its status; None when there is none."""
    changed: tuple[str, ...] = ()
    """`Kind` of the objects that were made, changed or deleted."""
    replicas: int = 0
    """Pods that the Deployment is to have; 0 while that is not known."""
    busy: ApiBusy | None = None
    """Why some of it is as it was, and is to be tried again soon. What was asked for may be right."""
    is_waiting: bool = False
    """Whether a problem is an object that goes: of a former Gateway, or one that is being deleted."""


@dataclass
class Provisioner:
    """Provisions Gateways, one call each; calls for different Gateways may run side by side."""

    api: Api
    _seen: dict[tuple[Key, str], tuple[str, str]] = field(default_factory=dict, init=False)
    """By Gateway and kind: digest of what was applied last, and the resourceVersion that the object had then."""

    async def provision(self, gateway: Key, objects: Sequence[Json]) -> Provisioned:
        """Makes what is there equal to `objects`, which are all of the Gateway's and in the order of their use.

        Writes only what differs from what was applied last, or was touched since. Raises ApiUnreachable, and ApiRefused
        for what cannot be read; a write that the API server refuses is among the problems, or is its being busy, and
        does not keep it from the rest.
        """
        busy: ApiBusy | None = None
        is_waiting = False
        problems: list[str] = []
        changed: list[str] = []
        service: Json | None = None
        replicas = 0
        wanted = {str(item["kind"]) for item in objects}
        for kind in DISPENSABLE:
            if kind not in wanted:
                try:
                    if await self._delete(gateway, kind, uid=_owner(objects)):
                        changed.append(kind)
                except ApiBusy as refusal:
                    busy = refusal
                except ApiRefused as refusal:
                    problems.append(f"{kind} {gateway.namespace}/{name_of(gateway)}: {refusal.message}")
        for item in objects:
            kind = str(item["kind"])
            outcome = await self._apply(gateway, item)
            problems += outcome.problems
            changed += outcome.changed
            busy = outcome.busy or busy
            is_waiting = outcome.is_waiting or is_waiting
            if kind == "Service":
                service = outcome.live
            elif kind == "Deployment" and outcome.live is not None:
                replicas = int(outcome.live["spec"].get("replicas", 0))
        return Provisioned(tuple(problems), service, tuple(changed), replicas, busy, is_waiting)

    async def service(self, gateway: Key, *, uid: str) -> Json | None:
        """The Service as it is; None when there is none that belongs to the Gateway of this uid.

        Raises ApiUnreachable and ApiRefused.
        """
        live = await self._get(_path(gateway, "Service"))
        return live if live is not None and _owner([live]) == uid else None

    def forget(self, gateway: Key) -> None:
        """Drops what is remembered of a Gateway that is gone."""
        for key in [key for key in self._seen if key[0] == gateway]:
            del self._seen[key]

    async def _apply(self, gateway: Key, item: Json) -> "_Outcome":
        kind, name = str(item["kind"]), f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        path = _path(gateway, kind)
        live = await self._get(path)
        foreign = _not_ours(live, item) if live is not None else None
        if foreign is not None:
            return _Outcome(live=None, problems=(f"{kind} {name} {foreign.words}",), is_waiting=foreign.goes)
        digest = hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()
        if live is not None and self._seen.get((gateway, kind)) == (digest, _version(live)):
            return _Outcome(live)
        try:
            if live is not None and kind == "Deployment" and _gives_up_replicas(live, item):
                await self._hold_replicas(path, live)
            query = {"fieldManager": FIELD_MANAGER, "force": "true"}
            applied = await self.api.request("PATCH", path, item, query=query)
        except ApiBusy as refusal:
            return _Outcome(live, busy=refusal)
        except ApiRefused as refusal:
            self._seen.pop((gateway, kind), None)
            return _Outcome(live, problems=(f"{kind} {name}: {_words(refusal)}",))
        self._seen[gateway, kind] = (digest, _version(applied))
        is_same = live is not None and _content(live) == _content(applied)
        return _Outcome(applied, changed=() if is_same else (kind,))

    async def _delete(self, gateway: Key, kind: str, *, uid: str) -> bool:
        """Whether there was something of ours to delete."""
        path = _path(gateway, kind)
        self._seen.pop((gateway, kind), None)
        live = await self._get(path)
        if live is None or _owner([live]) != uid or "deletionTimestamp" in live["metadata"]:
            return False
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": live["metadata"]["uid"]}}
        await self.api.request("DELETE", path, options)
        return True

    async def _get(self, path: str) -> Json | None:
        try:
            return await self.api.request("GET", path)
        except ApiMissing:
            return None

    async def _hold_replicas(self, path: str, live: Json) -> None:
        """Has another manager hold the replicas, so that they stay when we let go of them."""
        held = {
            **{name: live[name] for name in ("apiVersion", "kind")},
            "metadata": {name: live["metadata"][name] for name in ("name", "namespace")},
            "spec": {"replicas": live["spec"]["replicas"]},
        }
        await self.api.request("PATCH", path, held, query={"fieldManager": _HANDING_OVER, "force": "true"})


@dataclass(frozen=True)
class _Outcome:
    live: Json | None
    problems: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    busy: ApiBusy | None = None
    is_waiting: bool = False


@dataclass(frozen=True)
class _Foreign:
    """Why an object must be left alone."""

    words: str
    goes: bool
    """Whether it will be gone soon."""


def _path(gateway: Key, kind: str) -> str:
    return f"{COLLECTIONS[kind].format(gateway.namespace)}/{name_of(gateway)}"


def _version(live: Json) -> str:
    return str(live["metadata"]["resourceVersion"])


def _content(live: Json) -> object:
    """What differs when an apply has changed something, and stays when somebody writes a status meanwhile."""
    generation = live["metadata"].get("generation")
    metadata = [live["metadata"].get(name) for name in ("uid", "labels", "annotations", "ownerReferences")]
    return generation or (metadata, live.get("spec"), live.get("data"))


def _owners(item: Json) -> Iterator[Any]:  # any: owner references
    yield from item["metadata"].get("ownerReferences") or ()


def _owner(items: Sequence[Json]) -> str:
    """UID of the controller of the first item; empty without one."""
    return next((str(owner["uid"]) for item in items[:1] for owner in _owners(item) if owner.get("controller")), "")


def _not_ours(live: Json, wanted: Json) -> _Foreign | None:
    """Why an object must be left alone; None when it is the Gateway's."""
    is_ending = "deletionTimestamp" in live["metadata"]
    if _owner([live]) != _owner([wanted]):
        owner = next(_owners(wanted))
        former = any(item["kind"] == "Gateway" and item["name"] == owner["name"] for item in _owners(live))
        what = "belongs to a former Gateway of this name" if former else f"does not belong to Gateway {owner['name']}"
        return _Foreign(f"exists and {what}", goes=former or is_ending)
    return _Foreign("is being deleted", goes=True) if is_ending else None


def _gives_up_replicas(live: Json, wanted: Json) -> bool:
    """Whether the replicas are ours to hold, and would be left to an autoscaler."""
    if "replicas" in wanted["spec"] or "replicas" not in live["spec"]:
        return False
    managers = live["metadata"].get("managedFields") or ()
    return any(
        item.get("manager") == FIELD_MANAGER and "f:replicas" in ((item.get("fieldsV1") or {}).get("f:spec") or {})
        for item in managers
    )


def _words(refusal: ApiRefused) -> str:
    """The API server's words, which name the field, without the object, which is named already."""
    return refusal.message.partition(" is invalid: ")[2] or refusal.message
