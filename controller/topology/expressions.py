"""Regular expressions that users write, made safe for PCRE inside a larger expression of nginx.

An accepted expression is balanced on its own, so that it cannot leave the group it is put in, and has no captures:
nginx reads memory that is no longer its own when a `map` captures (CVE-2026-42533, CVE-2026-93479). What cannot be
read with certainty is refused, with the position and what to write instead. How long an expression backtracks is not
judged here: PCRE's own match limit ends it.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from controller.topology.conditions import Condition, unsupported

LONGEST: Final = 1024
"""Bytes. Doubled or tripled by normalising and quoting, it stays below the 4,096 bytes of a parameter in nginx.conf."""
LARGEST: Final = 20_000
"""Estimated bytes of compiled code; PCRE refuses more than 65,535."""
MOST_REPEATS: Final = 1000
DEEPEST: Final = 32
"""Nested groups. PCRE allows 250."""

_ANY_OF: Final = frozenset("dDwWsShHvVR")
"""Escapes that stand for several characters."""
_ANCHORS: Final = frozenset("AZzbB")
_CONTROLS: Final = {"t": 9, "n": 10, "r": 13, "f": 12}
_ESCAPES: Final = _ANY_OF | _ANCHORS | _CONTROLS.keys()
_POSIX_CLASSES: Final = frozenset(
    {"alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph"}
    | {"lower", "print", "punct", "space", "upper", "word", "xdigit"}
)
_GROUPS: Final = ("(?:", "(?i:", "(?=", "(?!", "(?>")
_REFUSED_GROUPS: Final = (
    ("(?#", "a comment"),
    ("(?P", "a named group"),
    ("(?'", "a named group"),
    ("(?<=", "a look-behind"),
    ("(?<!", "a look-behind"),
    ("(?<", "a named group"),
    ("(?(", "a conditional"),
    ("(?|", "a branch reset group"),
    ("(?C", "a callout"),
    ("(?R", "recursion"),
    ("(?&", "recursion"),
    ("(?+", "recursion"),
    ("(?-", "recursion or an inline flag"),
    ("(*", "a verb"),
)
_REPEAT: Final = re.compile(r"\{(\d{1,5})(?:(,)(\d{1,5})?)?\}")
_HEX: Final = re.compile(r"[0-9a-fA-F]{2}")
_POSIX_CLASS: Final = re.compile(r"\[:\^?([a-z]+):\]")


def expression(text: str) -> str | Condition:
    """`text` for use inside a group of a larger expression: same matches, no captures."""
    if len(text.encode()) > LONGEST:
        return unsupported(f"regular expression is longer than {LONGEST} bytes")
    if not text:
        return unsupported("regular expression is empty")
    for position, char in enumerate(text):
        if ord(char) < 0x20 or ord(char) == 0x7F:
            return unsupported(f"regular expression {_show(text)}: control character at position {position}")
    scanner = _Scanner(text)
    try:
        return scanner.scan()
    except _Refused as refused:
        return unsupported(f"regular expression {_show(text)}: {refused} at position {scanner.position}")


def _show(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")


class _Refused(Exception):
    """Ends the scan; its text says what was found. Never leaves this module."""


@dataclass
class _Scanner:
    """Reads an expression from left to right and writes the normalised one."""

    text: str
    position: int = 0
    output: list[str] = field(default_factory=list)
    repeatable: bool = False
    """Whether what was read last can take a quantifier."""
    groups: list[tuple[int, bool]] = field(default_factory=list)
    """Per open group: size of what was read before it, and whether it can take a quantifier."""
    size: int = 0
    """Estimated bytes of code of the innermost open group."""
    last: int = 0
    """Estimated bytes of code of what was read last."""
    last_is_group: bool = False

    def scan(self) -> str:
        while self.position < len(self.text):
            self._read()
            if self.size > LARGEST:
                raise _Refused("too large once its repeats are written out")
        if self.groups:
            raise _Refused("a group is not closed")
        return "".join(self.output)

    def _read(self) -> None:
        char = self.text[self.position]
        if char == "\\":
            escape, kind = self._escape()
            self._item(escape, size=2, repeatable=kind not in _ANCHORS)
        elif char == "[":
            self._item(self._character_class(), size=34)
        elif char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char in "*+?{":
            self._quantifier()
        elif char in "|^$":
            self.position += 1
            self._item(char, size=3, repeatable=False)
        else:
            self.position += 1
            self._item(_literal(char), size=2 + len(char.encode()) * 2)

    def _item(self, written: str, *, size: int, repeatable: bool = True, is_group: bool = False) -> None:
        self.output.append(written)
        self.size += size
        self.last, self.last_is_group = size, is_group
        self.repeatable = repeatable

    def _escape(self) -> tuple[str, str]:
        """The escape at the position, and its letter."""
        if self.position + 1 == len(self.text):
            raise _Refused("a backslash escapes nothing")
        char = self.text[self.position + 1]
        if char == "x":
            digits = self.text[self.position + 2 : self.position + 4]
            if not _HEX.fullmatch(digits) or int(digits, 16) == 0:
                raise _Refused(r"\x is written with two hexadecimal digits, not 00")
            self.position += 4
            return f"\\x{digits}", "x"
        if char.isascii() and char.isalnum() and char not in _ESCAPES:
            raise _Refused(_refused_escape(char))
        if not char.isascii():
            raise _Refused("a backslash before a character outside ASCII")
        self.position += 2
        return f"\\{char}", char

    def _character_class(self) -> str:
        start = self.position
        if _POSIX_CLASS.match(self.text, start):
            raise _Refused("a POSIX class is written inside a character class, as in [[:alpha:]]")
        self.position += 1
        written = "["
        if self.text.startswith("^", self.position):
            written, self.position = "[^", self.position + 1
        first = True
        while first or not self.text.startswith("]", self.position):
            part, low = self._class_member(start)
            written += part
            first = False
            # A hyphen between two members is a range, and before the closing bracket a literal.
            following = self.text[self.position : self.position + 2]
            if following.startswith("-") and following != "-]":
                self.position += 1
                part, high = self._class_member(start)
                if low is None or high is None or low > high:
                    raise _Refused("a range in a character class is out of order")
                written += f"-{part}"
        self.position += 1
        return f"{written}]"

    def _class_member(self, start: int) -> tuple[str, int | None]:
        """One member of a character class, and its code point unless it stands for several."""
        if self.position >= len(self.text):
            self.position = start
            raise _Refused("a character class is not closed")
        char = self.text[self.position]
        if char == "\\":
            escape, kind = self._escape()
            if kind in _ANCHORS or kind == "R":
                raise _Refused(f"\\{kind} in a character class")
            if kind in _ANY_OF:
                return escape, None
            return escape, int(escape[2:], 16) if kind == "x" else _CONTROLS.get(kind, ord(kind))
        if char == "[":
            return self._bracket_in_class()
        if not char.isascii():
            raise _Refused("a character outside ASCII in a character class")
        self.position += 1
        return (f"\\{char}" if char in "]^-{}:.=" else char), ord(char)

    def _bracket_in_class(self) -> tuple[str, int | None]:
        if self.text[self.position + 1 : self.position + 2] not in (":", ".", "="):
            self.position += 1
            return "\\[", ord("[")
        named = _POSIX_CLASS.match(self.text, self.position)
        if named is None or named[1] not in _POSIX_CLASSES:
            raise _Refused("an unknown POSIX character class")
        self.position = named.end()
        return named[0], None

    def _open(self) -> None:
        for prefix, what in _REFUSED_GROUPS:
            if self.text.startswith(prefix, self.position):
                raise _Refused(f"{what} is not supported")
        if self.text.startswith("(?i)", self.position):
            self.position += 4
            self._item("(?i)", size=0, repeatable=False)
            return
        prefix = next((known for known in _GROUPS if self.text.startswith(known, self.position)), "(")
        if prefix == "(" and self.text.startswith("(?", self.position):
            raise _Refused("only (?:...), (?i), (?i:...), (?=...), (?!...) and (?>...) may follow (?")
        if len(self.groups) == DEEPEST:
            raise _Refused(f"more than {DEEPEST} nested groups")
        self.groups.append((self.size, prefix not in ("(?=", "(?!")))
        self.output.append("(?:" if prefix == "(" else prefix)
        self.position += len(prefix)
        self.size, self.repeatable = 8, False

    def _close(self) -> None:
        if not self.groups:
            raise _Refused("a closing parenthesis closes nothing")
        before, repeatable = self.groups.pop()
        inner, self.size = self.size, before
        self.position += 1
        self._item(")", size=inner, repeatable=repeatable, is_group=True)

    def _quantifier(self) -> None:
        bounds = _REPEAT.match(self.text, self.position)
        if self.text[self.position] == "{" and bounds is None:
            raise _Refused(r"{ is written \{ unless it opens a repeat such as {2}, {2,} or {2,5}")
        if not self.repeatable:
            raise _Refused("a quantifier follows nothing that can be repeated")
        written, most = self.text[self.position], 1
        if bounds is not None:
            written, most = bounds[0], max(int(bounds[1]), int(bounds[3] or 0))
            if most > MOST_REPEATS or (bounds[3] and int(bounds[1]) > int(bounds[3])):
                raise _Refused(f"bounds of a repeat are in order and at most {MOST_REPEATS}")
        self.position += len(written)
        if self.text[self.position : self.position + 1] in ("?", "+"):
            written += self.text[self.position]
            self.position += 1
        grown = self.last * max(most, 1) if self.last_is_group else self.last + 8
        self._item(written, size=grown - self.last, repeatable=False)


def _literal(char: str) -> str:
    """A character outside ASCII is several bytes to PCRE here, which a quantifier must take together."""
    if not char.isascii():
        return f"(?:{char})"
    return f"\\{char}" if char in "]}" else char


def _refused_escape(char: str) -> str:
    if char.isdigit() or char in "gk":
        return "a backreference is not supported"
    if char in "QE":
        return r"\Q and \E are not supported"
    if char in "pPX":
        return f"\\{char} is not supported: expressions match bytes"
    return f"\\{char} is not supported"
