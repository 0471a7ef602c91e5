"""Where the body of a request names its model, so that it can name another one and stay the same otherwise.

Finds what `nginx/njs/models.js` finds: the member `model` of a JSON object, or the field of a form, the last of
several, unless no header could say the name as it is. JSON that is not quite right is read up to a size alone.
"""

import ctypes
import json
import re
from typing import Final, NamedTuple, NoReturn, cast

import msgspec

from controller.picker.forms import boundary_of, place_in_form
from controller.picker.prompt import unmarked

_LONGEST: Final = 4096
"""Characters of a name."""
_LONGEST_WRITTEN: Final = 6 * _LONGEST
"""Bytes of a name in JSON: an escape takes six."""
_ODD: Final = 256 * 1024
"""Bytes of a body that is read again when it is not quite JSON, which takes 1 ms, or 50 where somebody wants it to."""
_UNSPEAKABLE: Final = re.compile(r"\A | \Z|[\x00-\x1f\x7f\ufffd]")
_OF_A_MODEL: Final = "/v1/models/"
_REALTIME: Final = "/v1/realtime"

_OPENS: Final = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*")
_SAYS: Final = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_GOES_ON: Final = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_ENDS: Final = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*\Z")
_NOWHERE: Final = (0, 0)


class Place(NamedTuple):
    """A model in a body."""

    model: str
    start: int
    end: int
    """Bytes of the body between which it is written, in JSON with its quotes."""
    is_form: bool

    def renamed(self, body: bytes, model: str) -> bytes:
        """The body with another model there."""
        written = model.encode() if self.is_form else msgspec.json.encode(model)
        return b"".join((body[: self.start], written, body[self.end :]))


class _Named(msgspec.Struct, gc=False):
    model: msgspec.Raw = cast(msgspec.Raw, b"")


def _refused(constant: str) -> NoReturn:
    """NaN and its kin are no JSON."""
    raise ValueError(constant)


_NAMED: Final = msgspec.json.Decoder(_Named)
_NAME: Final = msgspec.json.Decoder(str)
_VALUE: Final = json.JSONDecoder(strict=False, parse_constant=_refused)


def place_of(path: str, content_type: str, body: bytes) -> Place | None:
    """Where a request names its model; None where it names none, or an API has it outside of the body."""
    if _OF_A_MODEL in path or path.endswith(_REALTIME):
        return None
    boundary = boundary_of(content_type)
    if boundary is None:
        return _in_json(body)
    model, start, end = place_in_form(body, boundary)
    return Place(model, start, end, True) if _is_speakable(model) else None


def _in_json(body: bytes) -> Place | None:
    start, end = _member(body)
    written = body[start:end]
    if written[:1] != b'"' or len(written) > _LONGEST_WRITTEN:
        return None
    try:
        model = _NAME.decode(written)
    except ValueError:
        return None
    return Place(model, start, end, False) if _is_speakable(model) else None


def _is_speakable(model: str) -> bool:
    return bool(model) and len(model) <= _LONGEST and _UNSPEAKABLE.search(model) is None


def _member(body: bytes) -> tuple[int, int]:
    """Where the value of the last member `model` is written; zeros without one."""
    plain = unmarked(body)
    try:
        written = _NAMED.decode(plain).model
    except msgspec.ValidationError:
        return _NOWHERE
    except (ValueError, RecursionError):
        # Half of a surrogate pair in another member, as a cut emoji: model servers take such bodies.
        return _member_by_member(body) if len(body) <= _ODD else _NOWHERE
    if not written:
        return _NOWHERE
    # What was decoded is a view of what it was decoded from.
    start = _address(written) - _address(plain) + len(body) - len(plain)
    return start, start + len(written)


def _member_by_member(body: bytes) -> tuple[int, int]:
    """See `_member`. In Latin-1 each byte is a character, and what is not ASCII stands in strings alone."""
    text = body.decode("latin-1")
    opened = _OPENS.match(text, len(body) - len(unmarked(body)))
    at = opened.end() if opened else len(text)
    found = _NOWHERE
    try:
        while text.startswith('"', at):
            key, at = _VALUE.raw_decode(text, at)
            if (said := _SAYS.match(text, at)) is None:
                return _NOWHERE
            _, at = _VALUE.raw_decode(text, said.end())
            if key == "model":
                found = (said.end(), at)
            if (more := _GOES_ON.match(text, at)) is None:
                return found if _ENDS.match(text, at) else _NOWHERE
            at = more.end()
    except (ValueError, RecursionError):
        return _NOWHERE
    return _NOWHERE


class _Buffer(ctypes.Structure):
    """Source: Python/C API, Py_buffer."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("object", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("is_readonly", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_GET: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi)
)
_RELEASE: Final = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_Buffer))(("PyBuffer_Release", ctypes.pythonapi))


def _address(holder: bytes | msgspec.Raw) -> int:
    """Of the bytes of an object."""
    buffer = _Buffer()
    _GET(holder, ctypes.byref(buffer), 0)
    address: int = buffer.address
    _RELEASE(ctypes.byref(buffer))
    return address
