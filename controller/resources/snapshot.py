"""Everything that was read, typed, with what could not be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from controller.resources.meta import Key, Resource

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, order=True)
class Rejection:
    """A document that did not become a resource, or lost to another of the same name."""

    source: str
    """`path:line` of the document, relative to the directory, or the API path of the object."""
    subject: str
    """`Kind namespace/name` as far as it could be read, else `document N`."""
    field: str
    """Path of the field, such as `spec.rules[0].backendRefs[1].port`; empty when the whole document is meant."""
    message: str

    def __str__(self) -> str:
        where = f"{self.subject}: {self.field}" if self.field else self.subject
        return f"{self.source}: {where}: {self.message}"


@dataclass(frozen=True)
class Snapshot:
    """Resources of every kind, each kind oldest first (creation time, namespace, name)."""

    resources: tuple[Resource, ...]
    rejections: tuple[Rejection, ...] = ()
    """Sorted."""
    sources: tuple[tuple[Key, str], ...] = ()
    """(resource, `path:line`) for resources that came from files, sorted."""

    def of(self, kind: type[R]) -> Iterator[R]:
        """Resources of one kind, oldest first."""
        return (item for item in self.resources if isinstance(item, kind))


def snapshot(
    resources: Iterable[Resource], *, rejections: Iterable[Rejection] = (), sources: Iterable[tuple[Key, str]] = ()
) -> Snapshot:
    """A snapshot with its parts in order."""

    def age(item: Resource) -> tuple[object, ...]:
        meta = item.metadata
        return (item.kind, meta.creation_timestamp, meta.namespace, meta.name)

    return Snapshot(
        resources=tuple(sorted(resources, key=age)),
        rejections=tuple(sorted(rejections)),
        sources=tuple(sorted(sources)),
    )
