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
    """`path:line` of the field, or of the document where the field's is not known; the path is relative to the
    directory. The API path of an object that came from a cluster."""
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
    """Sorted by file and line."""
    sources: tuple[tuple[Key, str], ...] = ()
    """(resource, where it was read) as in a rejection, sorted."""
    ignored: tuple[tuple[str, str], ...] = ()
    """(`path:line`, `apiVersion Kind`) of documents of kinds that a gateway has no use for, sorted."""

    def of(self, kind: type[R]) -> Iterator[R]:
        """Resources of one kind, oldest first."""
        return (item for item in self.resources if isinstance(item, kind))


def snapshot(
    resources: Iterable[Resource],
    *,
    rejections: Iterable[Rejection] = (),
    sources: Iterable[tuple[Key, str]] = (),
    ignored: Iterable[tuple[str, str]] = (),
) -> Snapshot:
    """A snapshot with its parts in order."""

    def age(item: Resource) -> tuple[object, ...]:
        meta = item.metadata
        return (item.kind, meta.creation_timestamp, meta.namespace, meta.name)

    def place(item: tuple[Key, str]) -> tuple[str, ...]:
        key, source = item
        return (key.group, key.kind, key.namespace, key.name, source)  # seven times faster than comparing keys

    return Snapshot(
        resources=tuple(sorted(resources, key=age)),
        rejections=tuple(sorted(rejections, key=lambda item: (_by_line(item.source), item))),
        sources=tuple(sorted(sources, key=place)),
        ignored=tuple(sorted(ignored, key=lambda item: (_by_line(item[0]), item[1]))),
    )


def _by_line(source: str) -> tuple[str, int]:
    """Sorts `path:line` by the number of the line."""
    path, _, line = source.rpartition(":")
    return (path, int(line)) if line.isdecimal() else (source, 0)
