"""The field `model` of a form (RFC 7578), as uploads of audio and images have it.

Reads as `nginx/njs/multipart.js` does: of several fields the last one counts, files are passed over, and a form that is
broken has none.
"""

import re
from typing import Final

_FORM: Final = re.compile(r"\s*multipart/form-data\s*(?:;|\Z)", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_DISPOSITION: Final = re.compile(rb"\r\ncontent-disposition:\s*form-data\s*;([^\r]*)", re.IGNORECASE)
_FILE: Final = re.compile(rb";\s*filename\*?=", re.IGNORECASE)
_MODEL: Final = re.compile(rb';\s*[nN][aA][mM][eE]=(?:"model"|model)\s*(?:;|\Z)')
_LONGEST_HEAD: Final = 16384
"""Bytes of the headers of a part."""
_LONGEST_NAME: Final = 4096
_REPLACEMENT: Final = "\ufffd"
_NOWHERE: Final = ("", 0, 0)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names, empty without one; None when it is not that of a form."""
    if not _FORM.match(content_type):
        return None
    found = _BOUNDARY.search(content_type)
    return (found[1] or found[2]).encode("latin-1") if found else b""


def model_in_form(body: bytes, boundary: bytes) -> str:
    """The model that a form names; empty without one."""
    return place_in_form(body, boundary)[0]


def place_in_form(body: bytes, boundary: bytes) -> tuple[str, int, int]:
    """The model that a form names, and the bytes between which it stands; empty without one."""
    if not boundary:
        return _NOWHERE
    delimiter = b"--" + boundary
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        return _NOWHERE
    at = start + len(delimiter)
    delimiter = b"\r\n" + delimiter
    found = _NOWHERE
    while body[at : at + 2] == b"\r\n":
        end_of_head = body.find(b"\r\n\r\n", at)
        if end_of_head < 0 or end_of_head - at > _LONGEST_HEAD:
            return _NOWHERE
        content = end_of_head + 4
        end = body.find(delimiter, end_of_head + 2)
        if end < 0:
            return _NOWHERE
        if _is_model(body[at:end_of_head]):
            found = (_text(body[content:end]), content, end)
        at = end + len(delimiter)
    return found if body[at : at + 2] == b"--" else _NOWHERE


def _is_model(head: bytes) -> bool:
    found = _DISPOSITION.search(head)
    return found is not None and not _FILE.search(b";" + found[1]) and _MODEL.search(b";" + found[1]) is not None


def _text(value: bytes) -> str:
    if len(value) > _LONGEST_NAME:
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return "" if _REPLACEMENT in text else text
