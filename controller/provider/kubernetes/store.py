"""The newest form of every object that was listed or watched, each parsed once."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from controller.kube import Json
from controller.provider.kubernetes.served import Slot
from controller.provider.kubernetes.trim import trimmed
from controller.provider.last_good import last_good_forms
from controller.resources.core import ConfigMap
from controller.resources.kinds import Refused, read
from controller.resources.meta import Key, Resource
from controller.resources.snapshot import Rejection, Snapshot, snapshot


class Difference(IntEnum):
    """What a newer form of an object changed."""

    NOTHING = 0
    STATUS = 1
    """Only what controllers write about it."""
    CONTENT = 2


@dataclass(frozen=True)
class Held:
    """One object as it was last seen."""

    path: str
    """Of the object in the API."""
    uid: str
    version: str
    """Its resourceVersion."""
    generation: int
    """Of its spec. It may start again where a backup is restored."""
    api_version: str
    resource: Resource | None
    """None when it cannot be parsed."""
    status: Json | None
    rejections: tuple[Rejection, ...] = ()


class Store:
    """What is known of a cluster."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._slots: dict[Slot, set[Key]] = {}
        self._last = Snapshot(resources=())

    def held(self, key: Key) -> Held | None:
        return self._held.get(key)

    def put(self, slot: Slot, document: Json, *, path: str) -> tuple[Key, Difference]:
        """Takes an object as the API server sent it. `path` is that of its list."""
        key = _key(slot, document)
        metadata = document["metadata"]
        uid, version = str(metadata.get("uid", "")), str(metadata.get("resourceVersion", ""))
        before = self._held.get(key)
        self._slots.setdefault(slot, set()).add(key)
        if before is not None and (before.uid, before.version) == (uid, version):
            return key, Difference.NOTHING
        held = _parsed(slot, document, path=_object_path(path, key), uid=uid, version=version)
        difference = _difference(before, held)
        if difference is not Difference.CONTENT:
            held = _with_known_parts(held, before)
        self._held[key] = held
        return key, difference

    def remove(self, slot: Slot, document: Json) -> tuple[Key, Difference]:
        key = _key(slot, document)
        self._slots.get(slot, set()).discard(key)
        if self._is_in_another(slot, key):
            return key, Difference.NOTHING
        return key, Difference.NOTHING if self._held.pop(key, None) is None else Difference.CONTENT

    def retain(self, slot: Slot, keys: Collection[Key]) -> tuple[Key, ...]:
        """Removes what a complete list of a slot did not have. Returns what is gone."""
        left = sorted(self._slots.get(slot, set()) - set(keys))
        gone = tuple(key for key in left if not self._is_in_another(slot, key))
        self._slots.get(slot, set()).difference_update(left)
        for key in gone:
            del self._held[key]
        return gone

    def forget(self, slot: Slot) -> tuple[Key, ...]:
        """Removes a slot that is filled no longer. Returns what is gone."""
        gone = self.retain(slot, ())
        self._slots.pop(slot, None)
        return gone

    def of(self, models: tuple[type[Resource], ...]) -> Iterator[Resource]:
        """Resources of some kinds, as far as they can be parsed."""
        for slot, keys in self._slots.items():
            if slot.model in models:
                found = (self._held[key].resource for key in keys)
                yield from (item for item in found if item is not None)

    def snapshot(self) -> Snapshot:
        """Everything, and the last good form of what cannot be parsed in its newest."""
        resources = {key: item.resource for key, item in self._held.items() if item.resource is not None}
        sources = {key: self._held[key].path for key in resources}
        for resource, source in last_good_forms(self._last, present=resources, may_be_hidden=self._is_flawed):
            resources[resource.key] = resource
            sources[resource.key] = source
        self._last = snapshot(
            resources.values(),
            rejections=(rejection for item in self._held.values() for rejection in item.rejections),
            sources=sources.items(),
        )
        return self._last

    def _is_in_another(self, slot: Slot, key: Key) -> bool:
        """Whether another slot has an object too: a ConfigMap is read by its label, or by its name, or by both."""
        return any(
            key in keys
            for other, keys in self._slots.items()
            if other.model is slot.model is ConfigMap and other != slot
        )

    def _is_flawed(self, resource: Resource, source: str) -> bool:
        held = self._held.get(resource.key)
        return held is not None and held.path == source and held.uid == resource.metadata.uid


def _key(slot: Slot, document: Json) -> Key:
    metadata = document["metadata"]
    return Key(slot.group, slot.model.kind_name(), metadata.get("namespace") or "", metadata["name"])


def _object_path(path: str, key: Key) -> str:
    if not key.namespace or "/namespaces/" in path:
        return f"{path}/{key.name}"
    prefix, _, plural = path.rpartition("/")
    return f"{prefix}/namespaces/{key.namespace}/{plural}/{key.name}"


def _parsed(slot: Slot, document: Json, *, path: str, uid: str, version: str) -> Held:
    kept = trimmed(document, slot.model)
    result = read(kept, index=1)
    status = kept.get("status")
    flaws: tuple[Rejection, ...] = ()
    if isinstance(result, Refused):
        flaws = tuple(Rejection(path, result.subject, item.field, item.message) for item in result.problems)
    return Held(
        path=path,
        uid=uid,
        version=version,
        generation=int(document["metadata"].get("generation") or 0),
        api_version=str(document.get("apiVersion", "")),
        resource=result if isinstance(result, Resource) else None,
        status=status if isinstance(status, dict) else None,
        rejections=flaws,
    )


def _difference(before: Held | None, after: Held) -> Difference:
    if before is None or before.uid != after.uid or before.rejections != after.rejections:
        return Difference.CONTENT
    if _has_other_content(before.resource, after.resource):
        return Difference.CONTENT
    return Difference.STATUS if before.status != after.status else Difference.NOTHING


def _has_other_content(before: Resource | None, after: Resource | None) -> bool:
    if before is None or after is None:
        return before is not after
    return before.content != after.content


def _with_known_parts(after: Held, before: Held | None) -> Held:
    """An object of the same content, in the parts that are known: what was made of those need not be made again."""
    if before is None or before.resource is None or after.resource is None:
        return after
    return replace(after, resource=before.resource.model_copy(update={"status": after.resource.status}))
