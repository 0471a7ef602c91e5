"""Files of a directory to a snapshot, again and again, at the cost of what changed.

Parsed documents are kept as long as their text is the same. What cannot be read becomes a Rejection and takes nothing
else with it: while a document has a flaw, the resource that it was before stays as it was, as it would in a cluster
whose API server refuses an edit.
"""

import logging
import re
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath

from controller.provider.directory import Files, Signature, read_files, signature
from controller.provider.last_good import last_good_forms
from controller.provider.objects import Entry, Flaw, Parsed, parse_file
from controller.provider.yaml_documents import PARSER, Parser
from controller.resources.gateway_api import CONTROLLER_NAME, GatewayClass, GatewayClassSpec
from controller.resources.kinds import MODELS
from controller.resources.meta import Key, Metadata, Resource
from controller.resources.snapshot import Rejection, Snapshot, snapshot

log = logging.getLogger(__name__)

_OBJECT = re.compile(r"(?!document \d+\Z)([A-Za-z0-9]+) (\S+)")
"""The subject of a document that tells its kind and name."""
_KINDS = frozenset(model.kind_name() for model in MODELS)
_LIKE = 0.85  # of a kind from which on it is another one, misspelt


class Reader:
    """Reads a directory again and again, and keeps what did not change."""

    def __init__(self, root: Path, *, parser: Parser = PARSER) -> None:
        self._root = root
        self._parser = parser
        self._files: Files | None = None
        self._signature: Signature | None = None
        self._parsed: dict[str, Parsed] = {}
        self._snapshot = Snapshot(resources=())
        self.changed: tuple[str, ...] = ()
        """Files whose content differed in the last reading that gave another snapshot, sorted."""

    def read(self, *, unless_same: bool = False) -> Snapshot:
        """The snapshot of what is there now.

        unless_same: whether to trust names, times and sizes of the files when they are as before.
        Raises InputUnreadable when the directory does not exist or cannot be listed.
        """
        seen = signature(self._root)
        if unless_same and seen == self._signature:
            return self._snapshot
        files = read_files(self._root)
        if files != self._files:
            before = self._files.texts if self._files else {}
            self.changed = tuple(
                sorted(name for name in before.keys() | files.texts.keys() if before.get(name) != files.texts.get(name))
            )
            self._snapshot = self._assemble(files)
            self._files = files
        self._signature = seen
        return self._snapshot

    def _assemble(self, files: Files) -> Snapshot:
        parsed: dict[str, Parsed] = {}
        collected = _Collected(rejections=list(files.rejections))
        for name, text in files.texts.items():
            for entry in parse_file(name, text, known=self._parsed, kept=parsed, parser=self._parser):
                collected.add(name, entry)
        self._parsed = parsed
        collected.keep(self._snapshot)
        return collected.snapshot()


class _Collected:
    """Entries of all files, in the order of their names and lines."""

    def __init__(self, *, rejections: list[Rejection]) -> None:
        self._resources: dict[Key, Resource] = {}
        self._sources: dict[Key, str] = {}
        self._rejections = rejections
        self._flawed: dict[str, set[str]] = {}
        """Subjects of documents that cannot be read, by file; a file or directory that cannot is a subject itself."""
        for rejection in rejections:
            self._flawed.setdefault(rejection.source, set()).add(rejection.subject)
        self._ignored: list[tuple[str, str]] = []

    def add(self, file: str, entry: Entry) -> None:
        source = f"{file}:{entry.line + 1}"
        item = entry.item
        if isinstance(item, Flaw):
            self._rejections.append(Rejection(source, item.subject, item.field, item.message))
            self._flawed.setdefault(file, set()).add(item.subject)
        elif isinstance(item, str):
            self._ignored.append((source, item))
        elif item.key in self._resources:
            message = f"is defined at {self._sources[item.key]} already, which stays"
            self._rejections.append(Rejection(source, str(item.key), "metadata.name", message))
        else:
            self._resources[item.key] = item.resource
            self._sources[item.key] = source

    def keep(self, before: Snapshot) -> None:
        """Keep what documents that cannot be read had before.

        A document that tells what it is hides that object, or one of its name where its kind is misspelt. One that
        does not may be any that its file had, and a file or directory that cannot be read hides all that it had.
        """
        kept = last_good_forms(before, present=self._resources, may_be_hidden=self._may_be_hidden)
        for resource, source in kept:
            self._resources[resource.key] = resource
            self._sources[resource.key] = source
        if kept:
            names = ", ".join(sorted(str(resource.key) for resource, _ in kept))
            log.warning("last good form stays while its file has a flaw", extra={"resources": names})

    def _may_be_hidden(self, resource: Resource, source: str) -> bool:
        file = source.rpartition(":")[0]
        places = (file, *(str(parent) for parent in PurePosixPath(file).parents))
        return any(_hides(subject, resource.key) for place in places for subject in self._flawed.get(place, ()))

    def snapshot(self) -> Snapshot:
        resources = list(self._resources.values())
        ours = any(
            isinstance(each, GatewayClass) and each.spec.controller_name == CONTROLLER_NAME for each in resources
        )
        own = _own_class()
        if not ours and own.key not in self._resources:
            resources.append(own)
        return snapshot(resources, rejections=self._rejections, sources=self._sources.items(), ignored=self._ignored)


def _hides(subject: str, key: Key) -> bool:
    """Whether a document that cannot be read may be an object."""
    told = _OBJECT.fullmatch(subject)
    if told is None or subject == str(key):
        return True
    kind, path = told.groups()
    if path != key.path or kind in _KINDS:
        return False
    return SequenceMatcher(None, kind.lower(), key.kind.lower()).ratio() >= _LIKE


def _own_class() -> GatewayClass:
    """The GatewayClass that an installation into a cluster would bring along."""
    return GatewayClass(
        api_version="gateway.networking.k8s.io/v1",
        kind="GatewayClass",
        metadata=Metadata(name="infergate"),
        spec=GatewayClassSpec(controller_name=CONTROLLER_NAME),
    )
