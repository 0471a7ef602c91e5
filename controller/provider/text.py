"""Text of a file to the texts of its documents, so that each is parsed, refused and remembered alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from controller.resources.scalars import Location

DEEPEST = 100
"""Levels of nesting that are read; the deepest field of the Gateway API is at 15."""

_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_CONTENT = re.compile(r"^(?![ \t\r]*(?:#|$)|%)", re.MULTILINE)
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Malformed(Exception):
    """Text that is no document."""

    message: str
    line: int
    """0-based line in the text."""
    location: Location = ()
    """Of the field, as far as it is known."""


def split(text: str) -> Iterator[tuple[int, str]]:
    """(0-based line, text) of each document of a YAML stream, directives with theirs, empty ones left out.

    A `---` or `...` at the start of a line is never content, so one broken document cannot take in its neighbours.
    """
    begin, line = 0, 0
    directives = ""
    for end, following in _boundaries(text):
        piece = text[begin:end]
        if _holds_document(piece):
            yield line - directives.count("\n"), directives + piece
            directives = ""
        elif _DIRECTIVE.search(piece):
            directives = piece
        line += text.count("\n", begin, following)
        begin = following


def check_characters(text: str) -> None:
    """Raises Malformed for the first character that neither YAML nor JSON may hold.

    A byte that is not UTF-8 is expected as the surrogate that `surrogateescape` makes of it.
    """
    match = _UNREADABLE.search(text)
    if match is None:
        return
    line = text.count("\n", 0, match.start())
    if "\udc80" <= match.group() <= "\udcff":
        raise Malformed(f"invalid UTF-8: byte 0x{ord(match.group()) - 0xDC00:02x}", line)
    raise Malformed(f"character U+{ord(match.group()):04X} is not allowed", line)


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8 and has no NUL."""
    if value.isascii():
        return "\0" not in value
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _boundaries(text: str) -> Iterator[tuple[int, int]]:
    """(end of a document, start of the next)."""
    for match in _MARKER.finditer(text):
        if match.group() == "---":
            yield match.start(), match.start()
        else:
            yield match.start(), text.find("\n", match.end()) + 1 or len(text)
    yield len(text), len(text)


def _holds_document(piece: str) -> bool:
    """Whether there is more than a marker, comments, directives and empty lines."""
    if not piece.startswith("---"):
        return _CONTENT.search(piece) is not None
    first, _, rest = piece[3:].partition("\n")
    first = first.strip()
    return bool(first and not first.startswith("#")) or _CONTENT.search(rest) is not None
