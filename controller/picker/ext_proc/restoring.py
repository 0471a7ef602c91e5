"""Puts a name in the place of the model that an answer tells, while it passes.

As `nginx/njs/restore.js` does: the member `model` of the answer's JSON object, and of the objects `message` and
`response` in it, where Anthropic's and OpenAI's streams have it. In a stream each line with data is such an object.
Keys count as they are written without escapes. Everything else stays as it is, byte by byte, and only what may be such
a member is held until its end is there.
"""

import re
from enum import Enum, auto
from typing import Final

import msgspec

_STREAM: Final = re.compile(rb"\s*text/event-stream\s*(?:;|\Z)", re.IGNORECASE)
_JSON: Final = re.compile(rb"\s*application/json\s*(?:;|\Z)", re.IGNORECASE)
_DATA: Final = b"data:"
_KEY: Final = b'"model"'
_MODEL: Final = b"model"
_HOLDERS: Final = frozenset({b"message", b"response"})
_LONGEST_KEY: Final = 10
"""Bytes of a key that counts, with its quotes."""
_LONGEST_NAME: Final = 8192
"""Bytes that are held of a name; a longer one passes."""
_NEAR: Final = 4096
"""Bytes of a line in which its model stands, as programs write it. To look further takes 40 times its length."""
_TEXT: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_BESIDE: Final = rb'[^"{}\[\]]*'
_PLAIN: Final = re.compile(
    rb'data:[^"\\{}\[\]]*\{' + _BESIDE + rb"(?:" + _TEXT + _BESIDE + rb')*?("model"): ?(' + _TEXT + rb")", re.DOTALL
)
"""A line whose model stands before all objects and lists in its object, as in OpenAI's streams. No two parts can take
the same byte, so nothing is tried twice; possessive quantifiers would say so, but match wrongly in Python 3.11.2."""
_NEXT: Final = re.compile(rb'["{}\[\],]')
"""What counts among the members of an object that is watched."""
_NEXT_ELSEWHERE: Final = re.compile(rb'["{}\[\]]')


def restorer_of(headers: dict[str, bytes], *, model: str) -> "Restorer | None":
    """What restores a name in an answer with these headers; None where it cannot be read."""
    if "content-encoding" in headers:
        return None
    kind = headers.get("content-type", b"")
    is_stream = _STREAM.match(kind) is not None
    return Restorer(msgspec.json.encode(model), is_stream=is_stream) if is_stream or _JSON.match(kind) else None


class _Line(Enum):
    """Where a line stands."""

    BEGINS = auto()
    DATA = auto()
    OTHER = auto()


class Restorer:
    """Restores the name in one answer."""

    def __init__(self, name: bytes, *, is_stream: bool) -> None:
        """`name` is the JSON text that takes the place of a model's."""
        self._name = name
        self._is_stream = is_stream
        self._line = _Line.BEGINS
        self._members = _Members()
        self._held = b""

    def take(self, piece: bytes, *, is_last: bool = False) -> bytes:
        """What goes on for a piece; empty where all of it is held."""
        data = self._held + piece if self._held else piece
        found: list[tuple[int, int]] = []
        if self._is_stream:
            kept = self._lines(data, found, is_last=is_last)
        else:
            kept = self._members.look(data, 0, len(data), found, is_whole=is_last)
        self._held = data[kept:]
        if not found:
            return data if kept == len(data) else data[:kept]
        pieces: list[bytes] = []
        at = 0
        for start, end in found:
            pieces += (data[at:start], self._name)
            at = end
        return b"".join((*pieces, data[at:kept]))

    def _lines(self, data: bytes, found: list[tuple[int, int]], *, is_last: bool) -> int:
        """Look at lines. Returns from where on bytes are to be held."""
        at = 0
        while at < len(data):
            end = data.find(b"\n", at)
            has_end = end >= 0
            end = end if has_end else len(data)
            kept = self._part_of_line(data, at, end, found, is_whole=is_last or has_end)
            if kept < end:
                return kept
            at = end + 1
            if has_end:
                self._line = _Line.BEGINS
        return len(data)

    def _part_of_line(self, data: bytes, at: int, end: int, found: list[tuple[int, int]], *, is_whole: bool) -> int:
        if self._line is _Line.BEGINS:
            if end - at < len(_DATA) and not is_whole:
                return at
            if not data.startswith(_DATA, at, end) or (is_whole and _is_plain(data, at, end, found)):
                self._line = _Line.OTHER
                return end
            self._line = _Line.DATA
            self._members = _Members()
            at += len(_DATA)
        if self._line is _Line.OTHER:
            return end
        return self._members.look(data, at, end, found, is_whole=is_whole)


def _is_plain(data: bytes, at: int, end: int, found: list[tuple[int, int]]) -> bool:
    """Whether a line needs no more: without a model, or with one before all that could hold another, and no other."""
    first = data.find(_KEY, at, end)
    if first < 0:
        return True
    plain = _PLAIN.match(data, at, min(end, at + _NEAR))
    if plain is None or plain.start(1) != first or data.find(_KEY, plain.end(), end) >= 0:
        return False
    found.append(plain.span(2))
    return True


class _Members:
    """The members of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._watched = 0
        """Depth of the innermost object whose members count, 0 without one."""
        self._key = b""
        """The last one; empty for one that does not count."""
        self._is_key_next = False
        self._is_in_text = False
        self._is_escaped = False

    def look(self, data: bytes, at: int, end: int, found: list[tuple[int, int]], *, is_whole: bool) -> int:
        """Find models. Returns from where on bytes are to be held: nothing is where that is the end."""
        if self._is_in_text:
            at = self._go_on_behind(data, at, end)
        while at < end:
            is_watched = 0 < self._watched == self._depth
            item = (_NEXT if is_watched else _NEXT_ELSEWHERE).search(data, at, end)
            if item is None:
                return end
            at, byte = item.start(), item[0]
            if byte == b'"':
                behind = _behind_text(data, at + 1, end)
                if behind < 0:
                    if is_watched and not is_whole and end - at <= self._longest():
                        return at
                    self._open_text(data, at, end)
                    return end
                if is_watched:
                    self._take_text(data, at, behind, found)
                at = behind
                continue
            if byte == b",":
                self._is_key_next = True
            elif byte in (b"{", b"["):
                self._open(is_object=byte == b"{")
            else:
                self._close()
            at += 1
        return end

    def _longest(self) -> int:
        return _LONGEST_KEY if self._is_key_next else _LONGEST_NAME if self._key == _MODEL else 0

    def _take_text(self, data: bytes, at: int, behind: int, found: list[tuple[int, int]]) -> None:
        if self._is_key_next:
            key = data[at + 1 : behind - 1] if behind - at <= _LONGEST_KEY else b""
            self._key = key if key == _MODEL or key in _HOLDERS else b""
            self._is_key_next = False
        elif self._key == _MODEL:
            found.append((at, behind))

    def _open(self, *, is_object: bool) -> None:
        is_holder = self._depth == self._watched == 1 and self._key in _HOLDERS and not self._is_key_next
        self._depth += 1
        if is_object and (self._depth == 1 or is_holder):
            self._watched = self._depth
            self._is_key_next = True
            self._key = b""

    def _close(self) -> None:
        if self._depth == self._watched:
            self._watched -= 1
            self._key = b""
            self._is_key_next = False
        self._depth -= 1

    def _open_text(self, data: bytes, at: int, end: int) -> None:
        """A text that begins here goes on in the next piece."""
        if self._is_key_next and self._depth == self._watched:
            self._key = b""
            self._is_key_next = False
        self._is_in_text = True
        self._is_escaped = _ends_in_escape(data, at + 1, end)

    def _go_on_behind(self, data: bytes, at: int, end: int) -> int:
        """Where to go on in a piece that begins within a text."""
        if at >= end:
            return end
        start = at + 1 if self._is_escaped else at
        behind = _behind_text(data, start, end)
        if behind < 0:
            self._is_escaped = _ends_in_escape(data, start, end)
            return end
        self._is_in_text = self._is_escaped = False
        return behind


def _behind_text(data: bytes, start: int, end: int) -> int:
    """Where a text of which `start` is within ends, behind its quote; -1 where its end is not there."""
    while (quote := data.find(b'"', start, end)) >= 0:
        if not _ends_in_escape(data, start, quote):
            return quote + 1
        start = quote + 1
    return -1


def _ends_in_escape(data: bytes, start: int, end: int) -> bool:
    """Whether the last byte of a text's piece is a backslash that escapes what follows."""
    text = data[start:end]
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
