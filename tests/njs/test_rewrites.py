"""What a rewrite makes of bodies and answers, beside Python's parser."""

import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.njs.conftest import Restore, Scan
from tests.njs.test_models import _Writer as BodyWriter

pytestmark = pytest.mark.nginx

NAME: Final = 'ü "asked"'
_HOLDERS: Final = ("message", "response")
_KEYS: Final = ("model", "model", "message", "response", "choices", "x", "mod", "Model", "a" * 80, 'q"\\', "models")
_TEXTS: Final = ("target", "", '"model":"target"', "\\", '\\"', "{[", "}]", "a\nb", "ü😀", "x" * 100, "data: {")


def _value(choice: random.Random, depth: int) -> Any:  # JSON
    kind = choice.random()
    if kind < 0.4 or depth > 4:
        return choice.choice(_TEXTS)
    if kind < 0.6:
        return choice.choice((0, -1.5e3, True, None, 12345678901234567890, [0.123456789] * 20))
    if kind < 0.8:
        return [_value(choice, depth + 1) for _ in range(choice.randrange(4))]
    return _object(choice, depth + 1)


def _object(choice: random.Random, depth: int = 0) -> dict[str, Any]:  # as above
    return {choice.choice(_KEYS): _value(choice, depth) for _ in range(choice.randrange(6))}


def _restored(answer: Any) -> Any:  # as above
    """The same with the name in the places that count."""
    if not isinstance(answer, dict):
        return answer
    made = _named(answer)
    return {key: _named(item) if key in _HOLDERS and isinstance(item, dict) else item for key, item in made.items()}


def _named(answer: dict[str, Any]) -> dict[str, Any]:  # as above
    return {key: NAME if key == "model" and isinstance(item, str) else item for key, item in answer.items()}


def _written(choice: random.Random, value: Any) -> tuple[bytes, bytes]:  # as above
    """A value and the restored one, both written alike, in one of several ways."""
    is_ascii, indent = choice.random() < 0.5, choice.choice((None, None, 1))
    separators = choice.choice(((",", ":"), (", ", ": "), (" , ", "\t: ")))
    before = json.dumps(value, ensure_ascii=is_ascii, indent=indent, separators=separators)
    after = json.dumps(_marked(value), ensure_ascii=is_ascii, indent=indent, separators=separators)
    return before.encode(), after.replace(json.dumps(_MARK), json.dumps(NAME)).encode()


_MARK: Final = "here goes the name"


def _marked(value: Any) -> Any:  # as above
    text = json.dumps(_restored(value))
    return json.loads(text.replace(json.dumps(NAME), json.dumps(_MARK)))


def _cut(choice: random.Random, length: int) -> list[int]:
    """Ends of pieces: one, each byte, or some."""
    kind = choice.random()
    if kind < 0.2:
        return [length]
    if kind < 0.5:
        return [*range(1, length + 1)] or [0]
    return (
        sorted({choice.randrange(1, length + 1) for _ in range(choice.randrange(1, 9))} | {length}) if length else [0]
    )


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_answer_is_the_same_but_for_the_name(restore: Restore, seed: int) -> None:
    choice = random.Random(seed)
    pairs = [_written(choice, _object(choice) if choice.random() < 0.9 else _value(choice, 0)) for _ in range(200)]
    found = restore([(before, _cut(choice, len(before)), False) for before, _ in pairs], name=NAME)
    for (before, after), (sent, _) in zip(pairs, found, strict=True):
        assert sent == after, before


def _stream(choice: random.Random) -> tuple[bytes, bytes]:
    """A stream and what it becomes."""
    before = after = b""
    for _ in range(choice.randrange(1, 6)):
        kind, end = choice.random(), choice.choice((b"\n", b"\r\n"))
        if kind < 0.2:
            line = choice.choice(
                (b': {"model":"target"}', b"event: message_start", b"data: [DONE]", b'id: "', b"data", b"")
            )
            before, after = before + line + end, after + line + end
            continue
        event, restored = _written(choice, _object(choice))
        prefix = choice.choice((b"data: ", b"data:"))
        if b"\n" in event:
            continue
        before, after = before + prefix + event + end * 2, after + prefix + restored + end * 2
    return before, after


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_stream_is_the_same_but_for_the_name_wherever_it_is_cut(restore: Restore, seed: int) -> None:
    choice = random.Random(seed)
    pairs = [_stream(choice) for _ in range(100)]
    found = restore([(before, _cut(choice, len(before)), True) for before, _ in pairs], name=NAME)
    for (before, after), (sent, _) in zip(pairs, found, strict=True):
        assert sent == after, before


EVENT = (
    b'data: {"id":"1","object":"chat.completion.chunk","model":"target","choices":[{"index":0,"delta":{"content":'
    b'"the \\"model\\":\\"target\\" {["},"model":"target"}],"message":{"model":"target","x":{"model":"target"}},'
    b'"metadata":{"model":"target"}}\n\n'
)
RESTORED = EVENT.replace(b'chunk","model":"target"', b'chunk","model":"asked"', 1).replace(
    b'"message":{"model":"target"', b'"message":{"model":"asked"'
)


def test_event_is_restored_wherever_it_is_cut_in_two(restore: Restore) -> None:
    answers = [(EVENT * 2, [cut, 2 * len(EVENT)], True) for cut in range(1, 2 * len(EVENT))]
    assert [sent for sent, _ in restore(answers, name="asked")] == [RESTORED * 2] * len(answers)


def test_event_leaves_with_its_last_byte(restore: Restore) -> None:
    ends = [len(EVENT) * count for count in (1, 2, 3)]
    ((_, sizes),) = restore([(EVENT * 3, [*ends, ends[-1]], True)], name="asked")
    assert sizes == [len(RESTORED)] * 3 + [0]


def test_name_is_all_that_is_held_of_a_large_answer(restore: Restore) -> None:
    answer = b'{"x":"' + b"y" * 300_000 + b'","model":"' + b"z" * 100_000 + b'"}'
    ends = [*range(1000, len(answer), 1000), len(answer)]
    ((sent, sizes),) = restore([(answer, ends, False)], name="asked")
    assert sent == answer, "a name of that length is none"
    held = [end - sum(sizes[: number + 1]) for number, end in enumerate(ends)]
    assert 0 < max(held) < 10_000


@pytest.mark.parametrize("answer", [b'{"model":"target', b'{"model":', b'{"model":"a\\', b'"', b"}}]]{", b"\xff\x00"])
def test_answer_that_breaks_off_loses_no_byte(restore: Restore, answer: bytes) -> None:
    ends = [*range(1, len(answer) + 1)]
    found = restore([(answer, [*ends, len(answer)], is_stream) for is_stream in (False, True)], name="asked")
    assert [sent for sent, _ in found] == [answer] * 2


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_rewritten_body_is_the_same_document_but_for_the_model(scan: Scan, seed: int) -> None:
    choice = random.Random(seed)
    writer = BodyWriter(choice)
    bodies = [writer.body() for _ in range(1000)]
    found = scan([(body, choice.choice((1, 7, 64, 10**6)), None) for body in bodies])
    for body, (model, _, named) in zip(bodies, found, strict=True):
        try:
            pairs = json.loads(_text(body), object_pairs_hook=list)
        except (ValueError, RecursionError):
            continue
        if model is None:
            continue
        last = max(index for index, (key, _) in enumerate(pairs) if key == "model")
        starts = [at for at in range(len(body)) if body.startswith(named, at)]
        changed = [body[:at] + b'"new"' + body[at + len(named) :] for at in starts]
        expected = [(key, "new" if index == last else item) for index, (key, item) in enumerate(pairs)]
        assert any(_pairs(candidate) == expected for candidate in changed), body


def _text(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _pairs(body: bytes) -> object:
    try:
        return json.loads(_text(body), object_pairs_hook=list)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "answer",
    [
        lambda size: b'{"data":[{"embedding":[' + b"-0.0123456," * (size // 11) + b'0]}],"model":"target"}',
        lambda size: b'{"a":"' + b'\\"' * (size // 2) + b'","model":"target"}',
        lambda size: b'{"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b',"model":"target"}',
        lambda size: b'{"a":[' + b'{"x":"y"},' * (size // 10) + b'1],"model":"target"}',
    ],
)
def test_no_answer_takes_more_than_its_length(restore: Restore, answer: Callable[[int], bytes]) -> None:
    """Twice the length takes twice the time, not four times; with room for a machine that does other things."""
    small, large = 200_000, 1_600_000

    def seconds(size: int) -> float:
        made = answer(size)
        ends = [*range(16384, len(made), 16384), len(made)]
        start = time.perf_counter()
        ((sent, _),) = restore([(made, ends, False)], name="asked")
        assert sent.endswith(b'"model":"asked"}')
        return time.perf_counter() - start

    # In turns, so that what the machine does besides meets both.
    times = [(seconds(small), seconds(large)) for _ in range(3)]
    assert min(took for _, took in times) < 8 * 3 * min(took for took, _ in times)
