"""The readers of models in njs, beside the picker's and Python's, on 100,000 generated bodies.

Each run has other bodies; `--hypothesis-seed=N` makes them the same again.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.picker.ext_proc.model_places import place_of
from controller.picker.prompt import read_prompt
from tests.njs.conftest import Body, Find, Scan

pytestmark = pytest.mark.nginx

BATCHES: Final = 100
BODIES: Final = 1000
"""In a batch."""

_NAMES: Final = ("llama", "qwen", "a/b", "", "ü", "\\u00fc", "\\ud83d\\ude00", "x\\n", '\\"', "\\\\", "\\/", "n" * 300)
_BAD_NAMES: Final = ("\\ud800", "\\udc00x", b"\xff", b"\xc3", "\\ud83dx")
_KEYS: Final = (
    "model",
    "model",
    "mo\\u0064el",
    "\\u006dodel",
    "Model",
    "model ",
    "models",
    "messages",
    "stream",
    "x",
    "",
    "\\\\",
)
_TEXTS: Final = (
    "",
    "hi",
    '\\"model\\":\\"qwen\\"',
    "\\\\",
    '\\\\\\"',
    "}",
    "]",
    "{[",
    "ü😀",
    "\\ud800",
    b"\xff",
    "a" * 99,
)
_NUMBERS: Final = ("0", "-1", "1.5", "1e3", "-0.1E-2", "12345678901234567890", "1e999")
_WHITE: Final = ("", "", "", " ", "\n", "\t \r\n")
_PLAIN: Final = ("", "", "", "", "", "", " ")
_NOISE: Final = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"\x00",
    b" ",
    b"model",
    b"\xff",
    b"null",
    b"\xef\xbb\xbf",
)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _string(text: str | bytes) -> bytes:
    return b'"' + _bytes(text) + b'"'


class _Writer:
    """Writes bodies as no library would."""

    def __init__(self, choice: random.Random, *, spaces: Sequence[str] = _WHITE) -> None:
        self._random = choice
        self._spaces = spaces

    def body(self) -> bytes:
        made = self._white() + self._object(depth=0) + self._white()
        kind = self._random.random()
        if kind < 0.3:
            return self._spoilt(made)
        if kind < 0.32:
            return self._value(depth=1)
        if kind < 0.34:
            return b"\xef\xbb\xbf" + made
        return made

    def _object(self, *, depth: int) -> bytes:
        count = self._random.choice((0, 1, 1, 2, 3, 5))
        return b"{" + b",".join(self._member(depth) for _ in range(count)) + b"}"

    def _member(self, depth: int) -> bytes:
        key = self._random.choice(_KEYS)
        is_name = "del" in key and self._random.random() < 0.8
        value = self._name() if is_name else self._value(depth=depth + 1)
        return self._white() + _string(key) + self._white() + b":" + self._white() + value + self._white()

    def _name(self) -> bytes:
        return _string(self._random.choice(_NAMES if self._random.random() < 0.9 else _BAD_NAMES))

    def _value(self, *, depth: int) -> bytes:
        kind = self._random.random()
        if kind < 0.4:
            return _string(self._random.choice(_TEXTS))
        if kind < 0.6:
            return self._random.choice(_NUMBERS).encode()
        if kind < 0.7:
            return self._random.choice((b"true", b"false", b"null"))
        if kind < 0.702:
            deep = self._random.choice((200, 3000))
            return b"[" * deep + b"]" * deep
        if depth > 4:
            return b"[]"
        if kind < 0.85:
            return self._object(depth=depth)
        items = (self._white() + self._value(depth=depth + 1) for _ in range(self._random.choice((0, 1, 2, 4))))
        return b"[" + b",".join(items) + self._white() + b"]"

    def _spoilt(self, body: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 2))):
            at, to = self._random.randrange(len(body) + 1), self._random.randrange(3)
            noise = self._random.choice(_NOISE) if self._random.random() < 0.6 else b""
            body = body[:at] + noise + body[at + to :]
        return body

    def _white(self) -> bytes:
        return self._random.choice(self._spaces).encode()


def _no_constant(name: str) -> Any:  # never returns
    raise ValueError(name)


def reference(body: bytes) -> tuple[str, bool]:
    """The model that Python's parser finds, empty without one, and whether it takes the body for JSON."""
    try:
        text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        read = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return "", False
    model = read.get("model") if isinstance(read, dict) else None
    if not isinstance(model, str) or any("\ud800" <= character <= "\udfff" for character in model):
        return "", True
    return model, True


@settings(max_examples=BATCHES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_readers_agree(scan: Scan, seed: int) -> None:
    choice = random.Random(seed)
    writer = _Writer(choice)
    bodies = [writer.body() for _ in range(BODIES)]
    found = scan([(body, choice.choice((1, 7, 64, 10**6)), None) for body in bodies])
    for body, (model, is_broken, named) in zip(bodies, found, strict=True):
        expected, is_json = reference(body)
        if model is not None:
            assert json.loads(named) == model, body
        picked = read_prompt("/v1/completions", body).model
        assert picked == expected, body
        if is_json:
            assert (model or "", is_broken) == (expected, False), body
            place = place_of("/v1/completions", "application/json", body)
            assert (body[place.start : place.end], place.model) == (named, model) if place else _is_unsaid(model), body


def _is_unsaid(model: str | None) -> bool:
    """Whether no header can say a name."""
    return not model or not model.isprintable() or model != model.strip(" ")


@settings(max_examples=BATCHES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_quick_reader_finds_what_the_other_finds(scan: Scan, find_member: Find, seed: int) -> None:
    choice = random.Random(seed)
    bodies = [_Writer(choice, spaces=choice.choice((_WHITE, _PLAIN, _PLAIN))).body() for _ in range(BODIES)]
    quick = find_member(bodies)
    for body, found, (model, is_broken, named) in zip(
        bodies, quick, scan([(body, 10**6, None) for body in bodies]), strict=True
    ):
        assert found is None or (*found, False) == (model, named, is_broken), body
        assert found is None or read_prompt("/v1/completions", body).model in (found[0], ""), body


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_quick_reader_knows_what_programs_write(
    find_member: Find, separators: tuple[str, str], ensure_ascii: bool
) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": 'a "model": "b" \\ \n {[ ü'}], "model": "inner"}
    others: dict[str, Any] = {
        "messages": [message] * 3,
        "n": -1.5e3,
        "stop": None,
        "stream": True,
        "tools": [],
        "x": {},
    }
    for body in ({"model": "llama", **others}, {**others, "model": "llama"}, {"max": 1, "model": "llama", **others}):
        written = json.dumps(body, separators=separators, ensure_ascii=ensure_ascii).encode()
        assert find_member([written]) == [("llama", b'"llama"')], written
        assert find_member([written.replace(b'"llama"', b'""'), written.replace(b'"llama"', b"null")]) == [None] * 2
        assert find_member([written[:-1], written + b"}", written[1:]]) == [None] * 3


def test_quick_reader_compares_from_the_same_brackets(find_member: Find) -> None:
    """The same bytes between long strings count only where the same brackets are open."""
    text, gap = b"x" * 40, b'"],["'
    good = b'{"model":"a","m":[["' + gap.join([text] * 4) + b'"]]}'
    twice = b'{"model":"a","m":[["' + gap.join([text] * 3) + b'"],{"y":"' + gap.join([text] * 3) + b'"}]]}'
    assert find_member([good, twice]) == [("a", b'"a"'), None]
    assert find_member([good[:length] for length in range(len(good))]) == [None] * len(good)


@settings(max_examples=BATCHES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_quick_reader_finds_nothing_in_spoilt_conversations(scan: Scan, find_member: Find, seed: int) -> None:
    choice = random.Random(seed)
    bodies = [_spoilt_conversation(choice) for _ in range(BODIES // 4)]
    found = scan([(body, 10**6, None) for body in bodies])
    for body, quick, (model, is_broken, named) in zip(bodies, find_member(bodies), found, strict=True):
        assert quick is None or (*quick, False) == (model, named, is_broken), body


def _spoilt_conversation(choice: random.Random) -> bytes:
    """Messages whose bytes between long texts repeat, with some byte lost, doubled or put elsewhere in half of them."""
    texts = ("hi", "x" * 33, "y" * 90, 'say "model": "z"' * 3, "a]}, {[" * 6, "\\" * 20)
    shape = choice.choice(
        (lambda text: text, lambda text: [{"type": "text", "text": text}], lambda text: {"a": [text]})
    )
    messages = [
        {"role": choice.choice(("user", "assistant")), "content": shape(choice.choice(texts))}
        for _ in range(choice.randrange(2, 9))
    ]
    members: list[tuple[str, Any]] = [("model", "llama"), ("messages", messages), ("n", 1), ("tools", messages[:2])]
    choice.shuffle(members)
    body = json.dumps(dict(members), separators=choice.choice(((", ", ": "), (",", ":")))).encode()
    if choice.random() < 0.5:
        at, to = choice.randrange(len(body)), choice.randrange(len(body))
        some = body[to : to + choice.randrange(1, 4)] if choice.random() < 0.5 else choice.choice(_NOISE)
        body = body[:at] + some + body[at + choice.randrange(3) :]
    return body


@pytest.mark.parametrize("cut", [1, 2, 10**6])
def test_every_byte_of_a_broken_body_counts(scan: Scan, cut: int) -> None:
    """No beginning of a body is taken for the whole."""
    body = rb' {"messages":[{"content":"a\"}\\"},[1]],"model":"llama","n":-1.5e3,"x":null}'
    found = scan([(body[:length], cut, None) for length in range(1, len(body))])
    assert found == [(None, True, b"")] * (len(body) - 1)


def _form(choice: random.Random) -> tuple[Body, str | None]:
    """A form, and the model in it."""
    boundary = choice.choice(("b", "----WebKitFormBoundaryx", "=_x.'()+,-/:?"))
    names = ("model", "file", "models", "Model", "x")
    contents = (
        b"llama",
        b"qwen",
        b"",
        b"\r\n",
        b"\r\n--",
        b"--" + boundary.encode()[:-1],
        b"\xff",
        b"a\r\n--b",
        b"\x00" * 70,
    )
    body, model = choice.choice((b"", b"", b"preamble\r\n")), None
    for _ in range(choice.randrange(5)):
        name, content = choice.choice(names), choice.choice(contents)
        if b"\r\n--" + boundary.encode() in b"\r\n" + content + b"\r\n":
            continue
        file = choice.choice(("", "", '; filename="f"'))
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode()
        body += choice.choice((b"", b"Content-Type: text/plain\r\n")) + b"\r\n" + content + b"\r\n"
        if name == "model" and not file:
            model = content.decode(errors="replace")
    body += f"--{boundary}--".encode() + choice.choice((b"", b"\r\n", b"epilogue"))
    return (body, choice.choice((1, 7, 64, 10**6)), boundary), model if model and "\ufffd" not in model else None


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_model_of_a_form_is_its_last_field(scan: Scan, seed: int) -> None:
    choice = random.Random(seed)
    forms = [_form(choice) for _ in range(500)]
    found = scan([form for form, _ in forms])
    for ((body, *_), expected), (model, is_broken, named) in zip(forms, found, strict=True):
        assert (model, is_broken, named.decode()) == (expected, False, expected or ""), body


@pytest.mark.parametrize(
    "body",
    [
        lambda size: b'{"a":{}' + b',"a":{}' * (size // 7) + b"}",
        lambda size: b'{"a":[' + b'"\\\\",' * (size // 5) + b"1]}",
        lambda size: b'{"a":"' + b"\\" * (size // 2 * 2) + b'"}',
        lambda size: b'{"a":[' + b"1," * (size // 2) + b"1]}",
        lambda size: b'{"a":' + b" " * size + b"1}",
        lambda size: b'{"a":"' + b'\\"' * (size // 2) + b'"}',
    ],
)
def test_no_body_takes_more_than_its_length(scan: Scan, body: Callable[[int], bytes]) -> None:
    """Twice the length takes twice the time, not four times; with room for a machine that does other things."""

    def seconds(size: int) -> float:
        made = body(size)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            assert scan([(made, 65536, None)]) == [(None, False, b"")]
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(1_600_000) < 8 * 3 * seconds(200_000)
