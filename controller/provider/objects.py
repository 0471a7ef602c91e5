"""Text of one file to the objects in it, each parsed once as long as its text stays the same."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.provider import json_lines
from controller.provider.json_documents import load_json
from controller.provider.text import Malformed, check_characters, split
from controller.provider.yaml_documents import Parser, lines_of, load_yaml
from controller.resources.kinds import KINDS, Ignored, Refused, named, read
from controller.resources.meta import Key, Resource
from controller.resources.problems import field_path
from controller.resources.scalars import Location


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a document."""

    subject: str
    field: str
    message: str


@dataclass(frozen=True)
class Found:
    """A resource with its key, which is asked for again and again."""

    key: Key
    resource: Resource


@dataclass(frozen=True)
class Entry:
    """One result of reading a file."""

    line: int
    """0-based, in the file or in the document's text."""
    item: Found | Flaw | str
    """A str is the `apiVersion Kind` of a document that is ignored."""


@dataclass(frozen=True)
class Parsed:
    """What came of the text of one document."""

    index: int
    """Number of the document in its file, which the subject of a flaw may hold."""
    entries: tuple[Entry, ...]


def parse_file(
    name: str, text: str, *, known: dict[str, Parsed], kept: dict[str, Parsed], parser: Parser
) -> Iterator[Entry]:
    """Entries of a file in their order.

    known: by text, what an earlier reading found. kept: is filled with what this reading found or took over.
    """
    documents = [(0, text)] if name.endswith(".json") else split(text)
    for index, (line, piece) in enumerate(documents, start=1):
        parsed = known.get(piece) or kept.get(piece)
        if parsed is None or (parsed.index != index and _has_flaw(parsed)):
            parse = _parse_json if name.endswith(".json") else _parse_yaml
            parsed = Parsed(index, tuple(parse(piece, index=index, parser=parser)))
        kept[piece] = parsed
        for entry in parsed.entries:
            yield Entry(line + entry.line, entry.item) if line else entry


def _has_flaw(parsed: Parsed) -> bool:
    return any(isinstance(entry.item, Flaw) for entry in parsed.entries)


def _parse_yaml(text: str, *, index: int, parser: Parser) -> Iterator[Entry]:
    try:
        document, line = load_yaml(text, parser=parser)
    except Malformed as error:
        yield _malformed(error, text, index=index)
        return
    lines: dict[Location, int] = {}
    for place, item in _objects(document):
        result = read(item, index=index)
        if not lines and (place or isinstance(result, Refused)):
            lines = lines_of(text, parser=parser)
        yield from _entries(result, place, lines=lines, line=_line_at(place, lines, line))


def _parse_json(text: str, *, index: int, parser: Parser) -> Iterator[Entry]:
    del parser
    try:
        check_characters(text)
        documents = load_json(text)
    except Malformed as error:
        yield _malformed(error, text, index=index)
        return
    for number, document in enumerate(documents, start=index):
        lines: dict[Location, int] = {}
        for place, item in _objects(document.value):
            result = read(item, index=number)
            if not lines and (place or isinstance(result, Refused)):
                lines = json_lines.lines_of(text, document.start)
            yield from _entries(result, place, lines=lines, line=_line_at(place, lines, document.line))


def _entries(
    result: Resource | Ignored | Refused, place: Location, *, lines: dict[Location, int], line: int
) -> Iterator[Entry]:
    if isinstance(result, Ignored) and result.kind.endswith(" List"):
        yield Entry(line, Flaw("List", "items", "accepted is a list of objects"))
    elif isinstance(result, Ignored):
        yield Entry(line, result.kind)
    elif isinstance(result, Refused):
        for problem in result.problems:
            at = _line_at((*place, *problem.location), lines, line)
            yield Entry(at, Flaw(result.subject, problem.field, problem.message))
    else:
        yield Entry(line, Found(result.key, result))


def _line_at(location: Location, lines: dict[Location, int], default: int) -> int:
    """Line of a field, or of the nearest one above it."""
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return default


def _objects(document: Any) -> Iterator[tuple[Location, Any]]:  # Any: of any shape until it is validated
    """(location, object) of a document, which may be empty, an object or a list of them."""
    if document is None:
        return
    kind = document.get("kind") if isinstance(document, dict) else None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list):
        yield (), document
        return
    for number, item in enumerate(items):
        for place, each in _objects(_typed(item, document)):
            yield ("items", number, *place), each


def _typed(item: Any, parent: dict[str, Any]) -> Any:  # Any: as above
    """An item of a list such as HTTPRouteList, whose items may leave out their kind."""
    api_version, kind = parent.get("apiVersion"), str(parent.get("kind")).removesuffix("List")
    if not isinstance(item, dict) or "kind" in item or (api_version, kind) not in KINDS:
        return item
    return {"apiVersion": api_version, "kind": kind, **item}


def _malformed(error: Malformed, text: str, *, index: int) -> Entry:
    return Entry(error.line, Flaw(_subject_in(text, index=index), field_path(error.location), error.message))


_KIND = re.compile(r"^kind:[ \t]*[\"']?([A-Za-z0-9]+)", re.MULTILINE)
_METADATA = re.compile(r"^metadata:.*\n?(?:(?:[ \t].*)?\n)*", re.MULTILINE)
_NAME = re.compile(r"[\s{,]name:[ \t]*[\"']?([^\s\"',{}]+)")
_NAMESPACE = re.compile(r"[\s{,]namespace:[ \t]*[\"']?([^\s\"',{}]+)")


def _subject_in(text: str, *, index: int) -> str:
    """Subject of a document that cannot be parsed, from the lines that usually tell."""
    kind = _KIND.search(text)
    metadata = _METADATA.search(text)
    if kind is None:
        return f"document {index}"
    name = _NAME.search(metadata.group()) if metadata else None
    if metadata is None or name is None:
        return f"{kind[1][:63]} in document {index}"
    namespace = _NAMESPACE.search(metadata.group())
    return named(kind[1][:63], namespace[1] if namespace else "", name[1])
