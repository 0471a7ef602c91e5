"""How text from resources is written into nginx.conf. Nothing else decides how a value is quoted.

nginx reads a double-quoted argument by these rules: a backslash before `"`, `'` or a backslash yields that character,
before `t`, `r` or `n` the control character, before anything else both characters. Where the directive expands
variables, `$` begins one, and there is no escape for it: `${dollar}` is a variable that holds the sign.
"""

import re

_NAME = str.maketrans({"/": "_", ":": "_", "[": None, "]": None})
_MAP_WORDS = ("default", "hostnames", "include", "volatile")
"""What stands for something else as the key of a map, unless a backslash comes before it."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters except the tab, which may stand in the value of a header."""


class UnwritableError(ValueError):
    """A value that no nginx argument can hold; topology refuses such values, so this is a bug."""


def text(value: str | int) -> str:
    """A quoted argument of a directive that expands variables: the value is taken as it is."""
    return _quoted(str(value).replace("\\", "\\\\").replace('"', '\\"').replace("$", "${dollar}"))


def literal(value: str | int) -> str:
    """A quoted argument of a directive that does not expand variables."""
    return _quoted(str(value).replace("\\", "\\\\").replace('"', '\\"'))


def map_key(hostname: str) -> str:
    """A hostname as the key of a map with `hostnames`; `*` is what no other key covers."""
    if hostname == "*":
        return "default"
    return literal(f"\\{hostname}" if hostname in _MAP_WORDS else hostname)


def regex(pattern: str) -> str:
    """A quoted case-sensitive regular expression as the key of a map. Real newlines are written as `\\n`."""
    escaped = pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return _quoted("~" + escaped)


def expression(*parts: str) -> str:
    """A quoted argument made of parts that are written already: variables, and what `inside` returns."""
    return _quoted("".join(parts))


def inside(value: str) -> str:
    """A value as a part of an `expression`."""
    return text(value)[1:-1]


def comment(value: str) -> str:
    """A value as a part of a comment: one line, at most 400 characters, so that a namespace and a name fit."""
    return _CONTROL.sub(" ", value)[:400]


def name(value: str) -> str:
    """A `namespace/name`, with or without a port, or an `ip:port` as the name of an upstream or a file.

    Names of Kubernetes have no underscore, so different values get different names.
    """
    return value.translate(_NAME)


def _quoted(escaped: str) -> str:
    if _CONTROL.search(escaped):
        raise UnwritableError(f"control character in {escaped[:80]!r}")
    return '"' + escaped.replace("\t", "\\t") + '"'
