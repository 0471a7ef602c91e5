"""YAML text to values.

Reads what Kubernetes' own tools read (YAML 1.1, but dates and sexagesimal numbers stay text), and is stricter where
they are silent: a key twice, a custom tag and an alias to its own parent are refused. Values are built from the
parser's events without recursion, and aliases may repeat a bounded number of values, so that a hostile document costs
no more than its size.
"""

import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import yaml

from controller.provider.text import DEEPEST, Malformed, check_characters, is_text
from controller.resources.scalars import Location, quoted

_MOST_COPIES = 100_000  # values that aliases may repeat in one document; a route has about 60
_LONGEST_NUMBER = 300  # characters; what is longer stays text

T = TypeVar("T")


class Events(Protocol):
    """A YAML parser, such as `yaml.CSafeLoader`."""

    def check_event(self) -> bool: ...
    def get_event(self) -> Any: ...  # one of yaml's event classes
    def dispose(self) -> None: ...


Parser = Callable[[str], Events]

PARSER: Parser = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # C takes a fifteenth of the time


def load_yaml(text: str, *, parser: Parser = PARSER) -> tuple[Any, int]:  # Any: of any shape until it is validated
    """Value and 0-based line of the one document in a text.

    Raises Malformed when it is not one document of mappings, lists and plain values.
    """
    last = text.count("\n")  # an empty value at the end counts as on the line after it
    try:
        value, line = _with_parser(text, parser=parser, take=lambda events: _Builder().build(events))
    except Malformed as error:
        raise Malformed(error.message, min(error.line, last), error.location) from error.__cause__
    return value, min(line, last)


def lines_of(text: str, *, parser: Parser = PARSER) -> dict[Location, int]:
    """0-based line of each field and item of a document that `load_yaml` accepts. Reads the text again."""
    return _with_parser(text, parser=parser, take=_lines)


def _with_parser(text: str, *, parser: Parser, take: Callable[[Events], T]) -> T:
    try:
        events = parser(text)
        try:
            return take(events)
        finally:
            events.dispose()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text) from error
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        check_characters(text)
        raise Malformed("not readable as YAML", 0) from error


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Malformed:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark else 0
    rows = text.split("\n")
    row = rows[line] if line < len(rows) else ""
    if row[: len(row) - len(row.lstrip())].count("\t"):
        return Malformed("not YAML: a tab in the indentation, accepted are spaces", line)
    problem = re.sub("'[^']{40,}'", "it", error.problem or "syntax error")
    context = f" {error.context}" if error.context else ""
    return Malformed(f"not YAML: {problem}{context}", line)


_TAG = "tag:yaml.org,2002:"
_OPEN = object()


class _Frame:
    """A mapping or list whose end has not come."""

    __slots__ = ("anchor", "key", "merged", "size", "value")

    def __init__(self, value: Any, anchor: str | None) -> None:  # Any: a dict or a list of anything
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[Any] = []  # mappings named by `<<`
        self.size = 1


class _Builder:
    """Builds the value of one document."""

    def __init__(self) -> None:
        self._frames: list[_Frame] = []
        self._anchors: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._copies = 0
        self._line = 0
        self._result: Any = None  # Any: see load_yaml

    def build(self, events: Events) -> tuple[Any, int]:  # Any: see load_yaml
        line = documents = 0
        while events.check_event():
            event = events.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._line = event.start_mark.line
                if not self._frames:
                    line = self._line
                self._scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._line = event.start_mark.line
                if not self._frames:
                    line = self._line
                self._open(event, {} if kind is yaml.MappingStartEvent else [])
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close()
            elif kind is yaml.AliasEvent:
                self._line = event.start_mark.line
                self._alias(event.anchor)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise Malformed("not YAML: content after the end of the document", event.start_mark.line)
        return self._result, line

    def _location(self) -> Location:
        places: list[str | int] = []
        for frame in self._frames:
            if isinstance(frame.value, list):
                places.append(len(frame.value))
            elif frame.key is not None and frame.key is not _MERGE:
                places.append(frame.key)
        return tuple(places)

    def _refuse(self, message: str) -> Malformed:
        return Malformed(message, self._line, self._location())

    def _open(self, event: Any, value: Any) -> None:  # Any: yaml's event, a dict or a list
        if len(self._frames) >= DEEPEST:
            raise self._refuse(f"nested too deeply, accepted are {DEEPEST} levels")
        expected = _TAG + ("map" if isinstance(value, dict) else "seq")
        if event.tag not in (None, "!", expected):
            raise self._refuse(f"found the tag {quoted(event.tag)}, accepted is none")
        if self._expects_key():
            raise self._refuse("found a mapping or a list as a key, accepted is text")
        if event.anchor is not None:
            self._anchors[event.anchor] = _OPEN
        self._frames.append(_Frame(value, event.anchor))

    def _close(self) -> None:
        frame = self._frames.pop()
        for other in frame.merged:
            for key, item in other.items():
                frame.value.setdefault(key, item)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = frame.value
            self._sizes[frame.anchor] = frame.size
        self._attach(frame.value, frame.size)

    def _scalar(self, event: Any) -> None:  # Any: yaml's event
        text: str = event.value
        if event.style == '"' and not is_text(text):
            raise self._refuse("a string holds NUL or half a surrogate pair")
        is_key = self._expects_key()
        value = text if is_key else self._value(event, text)
        if event.anchor is not None:
            self._anchors[event.anchor], self._sizes[event.anchor] = value, 1
        if not is_key:
            self._attach(value, 1)
        elif text == "<<" and not event.style:
            self._frames[-1].key = _MERGE
        else:
            self._name(text)

    def _expects_key(self) -> bool:
        return bool(self._frames) and self._frames[-1].key is None and isinstance(self._frames[-1].value, dict)

    def _name(self, key: str) -> None:
        frame = self._frames[-1]
        frame.key = key
        if key in frame.value:
            raise self._refuse(f"key {quoted(key)} is there twice")

    def _value(self, event: Any, text: str) -> Any:  # Any: yaml's event, see load_yaml
        if event.tag is None:
            return plain(text) if not event.style else text
        if event.tag in ("!", _TAG + "str"):
            return text
        kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
        expected = kinds.get(event.tag.removeprefix(_TAG)) if event.tag.startswith(_TAG) else None
        value = plain(text)
        if expected is None or not isinstance(value, expected):  # type: ignore[arg-type]  # a type or a tuple of types
            raise self._refuse(f"found the tag {quoted(event.tag)}, accepted is none")
        return value

    def _alias(self, name: str) -> None:
        if name not in self._anchors:
            raise self._refuse("found an alias without its anchor")
        value = self._anchors[name]
        if value is _OPEN:
            raise self._refuse("found an alias to what contains it")
        self._copies += self._sizes[name]
        if self._copies > _MOST_COPIES:
            raise self._refuse(f"aliases repeat more than {_MOST_COPIES} values")
        if not self._expects_key():
            self._attach(value, self._sizes[name])
        elif isinstance(value, str):
            self._name(value)
        else:
            raise self._refuse("found an alias as a key, accepted is text")

    def _attach(self, value: Any, size: int) -> None:  # Any: see load_yaml
        """Puts a finished value where it belongs."""
        if not self._frames:
            self._result = value
            return
        frame = self._frames[-1]
        frame.size += size
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is _MERGE:
            others = value if isinstance(value, list) else [value]
            if not all(isinstance(item, dict) for item in others):
                raise self._refuse("found '<<' without a mapping, accepted is a mapping or a list of them")
            self._copies += sum(len(item) for item in others)
            frame.merged += others
            frame.key = None
        else:
            frame.value[frame.key] = value
            frame.key = None


_MERGE = "<<\0"  # no key of a document: NUL is refused

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")
_FALSE = ("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF")
_WORDS: dict[str, bool | None] = dict.fromkeys(_NULLS) | dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
_INTEGER = re.compile("[-+]?(?:0|[1-9][0-9_]*)")
_OTHER_BASE = re.compile("([-+]?)0(?:(b)([01_]+)|(x)([0-9a-fA-F_]+)|(o?)([0-7_]+))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def plain(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if match := _OTHER_BASE.fullmatch(text):
        sign, binary, bits, hexadecimal, digits, _, octal = match.groups()
        number, base = (bits, 2) if binary else (digits, 16) if hexadecimal else (octal, 8)
        number = number.replace("_", "")
        return int(sign + number, base) if number else text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _lines(events: Events) -> dict[Location, int]:
    lines: dict[Location, int] = {}
    path: list[str | int] = []
    expects: list[str] = []  # for each open collection: what comes next, "key", "value" or "item"
    while events.check_event():
        event = events.get_event()
        line: int = event.start_mark.line
        if isinstance(event, yaml.CollectionEndEvent):
            expects.pop()
        elif not isinstance(event, yaml.NodeEvent):
            continue
        elif expects and expects[-1] == "key":
            path[-1] = getattr(event, "value", "")  # an alias has none
            lines[tuple(path)] = line
            expects[-1] = "value"
            continue
        else:
            if expects and expects[-1] == "item":
                lines[tuple(path)] = line
            if isinstance(event, yaml.CollectionStartEvent):
                is_map = isinstance(event, yaml.MappingStartEvent)
                expects.append("key" if is_map else "item")
                path.append("" if is_map else 0)
                continue
        _advance(path, expects, ended=isinstance(event, yaml.CollectionEndEvent))
    return lines


def _advance(path: list[str | int], expects: list[str], *, ended: bool) -> None:
    """After a value: the next key or item of the collection that holds it."""
    if ended:
        path.pop()
    if expects and expects[-1] == "value":
        expects[-1] = "key"
    elif path and isinstance(path[-1], int):
        path[-1] += 1
